"""
Many topic filters: the handlers that a message finds by the index are those that it finds without
one, in the same order, whatever changes and however little memory there is.
"""

import pytest

from tests.support import mpy
from tests.support.device import Device

# one, more than are tried one by one, and many
COUNTS = [1, 5, 50]

DECLARED = """
from tests.device.filters import TOPIC, Account, filter_of, order
account = Account()
for i in order(COUNT):
    client.on(filter_of(i), qos=1)(account.handler(i))

async def all_granted():
    for i in order(COUNT):
        await client.subscribe(filter_of(i), 1)
"""
ALONE = """
import gc
import sys
from mqtt_as_tls import topic_index
from mqtt_as_tls.router import matches
from tests.device.filters import TOPIC, filter_of, order
from tests.device.inside import Filters
"""


@pytest.mark.parametrize("count", COUNTS)
def test_handlers_run_in_the_order_of_declaration(broker, count):
    Device.check(
        broker,
        DECLARED
        + """
async with client:
    await all_granted()
    for n in range(3):
        await client.publish(TOPIC, str(n), qos=1)
        await until(lambda: account.spans.get(order(COUNT)[-1]) == [0, n])
        assert account.ran == order(COUNT), account.ran
    assert sorted(account.spans) == sorted(order(COUNT))
    assert indexed(client) == (COUNT > 4)
""",
        names={"COUNT": count},
    )


@pytest.mark.parametrize("count", COUNTS)
def test_subscriptions_change_while_messages_flow(broker, count):
    """
    Each handler gets every message from its declaration on, once, and none after it was taken
    back.
    """
    out = Device.check(
        broker,
        DECLARED
        + """
published = 0
stopping = False

async def publisher():
    nonlocal published
    while not stopping:
        await client.publish(TOPIC, str(published), qos=1)
        published += 1
        await asyncio.sleep_ms(5)

async def some():
    limit = published + 3
    await until(lambda: published > limit)

async with client:
    await all_granted()
    flow = asyncio.create_task(publisher())
    await some()
    changing = order(COUNT)[: (COUNT + 1) // 2]
    ended = []
    for i in changing:
        taken_back = client.unsubscribe(filter_of(i))
        ended.append(list(account.spans[i]))
        await taken_back
        await some()
    for i in changing:
        client.on(filter_of(i), qos=1)(account.handler(-1 - i))
        assert await client.subscribe(filter_of(i), 1) == 1
        await until(lambda: -1 - i in account.spans)
    await client.subscribe("a/#", 1)  # it has no handler
    await some()
    stopping = True
    await flow
    whole = order(COUNT)[len(changing) :] + [-1 - i for i in changing]
    await until(lambda: account.spans[whole[-1]][1] == published - 1)
    assert account.ran == whole, account.ran
    for who in whole:
        first, last = account.spans[who]
        assert last == published - 1 and (who < 0 or first == 0), (who, first, last)
    assert [account.spans[i] for i in changing] == ended
    await until(lambda: not held(client)[0])
    assert client.stats.connects == 1
""",
        timeout_s=60,
        names={"COUNT": count},
    )
    assert "WRONG" not in out and "failed" not in out


def test_without_memory_for_an_index_a_message_finds_its_handlers_all_the_same(broker):
    out = Device.check(
        broker,
        DECLARED
        + """
async with client:
    await all_granted()
    no_memory("for an index")
    for n in range(2):
        await client.publish(TOPIC, str(n), qos=1)
        await until(lambda: account.spans.get(order(COUNT)[-1]) == [0, n])
        assert account.ran == order(COUNT), account.ran
        print("indexed", indexed(client))
    assert client.stats.connects == 1
""",
        names={"COUNT": 50},
    )
    assert "indexed False\nindexed True\n" in out


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not loaded"])
def test_in_any_memory_the_index_is_whole_or_not_there(loaded):
    """However much there is when it is loaded and made, and when it is used."""
    mpy.check(
        ALONE
        + f"""
from tests.device.hunger import Hunger

filters = [filter_of(i) for i in order(50)]
topic = TOPIC.replace("b", "x")
wanted = [filter for filter in filters if matches(filter, topic)]
assert 20 < len(wanted) < 30
known = Filters(filters)
hunger = Hunger(20000)
counts = [0, 0]  # without an index, with one

def check(left):
    hunger.eat(left)
    found = known.candidates(topic)
    hunger.end()
    counts[known.indexed()] += 1
    assert known.of(found, topic) == wanted, left
    assert known.find(topic) == wanted, left

for left in range(0, 40000, 400):
    known.forget()
    if not {loaded}:
        sys.modules.pop("mqtt_as_tls.topic_index", None)
    check(left)
    assert known.indexed()
    check(left // 100)
assert all(counts), counts
""",
        heap="600K",
    )


def test_with_few_filters_a_message_takes_no_memory_to_find_its_handler():
    """It takes what it takes with one filter: to wait for its handler."""
    out = mpy.check(
        ALONE
        + """
for count in (1, 2, 4, 5):
    known = Filters(["home/room%d/set" % i for i in range(count)])
    known.taken("home/room0/set")
    print(known.taken("home/room0/set"), known.indexed())
"""
    )
    (taken, _), *few, (more, indexed) = [line.split() for line in out.splitlines()]
    assert few == [[taken, "False"]] * 2
    assert int(taken) < 100 < int(more) and indexed == "True"


def test_a_topic_of_many_levels_takes_memory_for_those_of_the_filters_alone():
    """
    A broker may send 65,535 of them. What it takes beside a copy of the topic is the same for a
    short one.
    """
    out = mpy.check(
        ALONE
        + """
filters = ["#", "+/+/+/#", "+/+", "/#", "//+/#", "+/#", "a/b"]
known = Filters(filters)
topics = ["/" * 5, "/" * 60000]
taken = []
for topic in topics:
    assert known.find(topic) == [filter for filter in filters if matches(filter, topic)]
    assert known.indexed()
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    known.candidates(topic)
    taken.append(gc.mem_alloc() - before)
    gc.enable()
print(taken[1] - taken[0])
"""
    )
    assert 0 <= int(out) <= 60100
