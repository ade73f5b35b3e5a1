"""
Topic filters that have topics in common (MQTT 5): a broker may send a copy of a message for each
(5.0 section 3.3.4). Subscription identifiers tell for which a copy is. Imported with the first
filter that may overlap another.

What it works on is `ids` of mqtt5.Wire: {filter: its identifier}, of filters that overlap another,
0 until it is asked for, and of those with an identifier of the app's own, less than 0 then.
"""

from binascii import crc32

from .router import matches


def overlap(a, b):
    """Return whether there are topics that both filters (str, valid) match."""
    a = a.split("/")
    b = b.split("/")
    for levels in (a, b):
        if levels[0] == "$share":
            del levels[:2]
    if a[0] != b[0] and (a[0][:1] == "$" or b[0][:1] == "$"):
        return False  # no wildcard is for $ [MQTT-4.7.2-1]
    for i in range(max(len(a), len(b))):
        at = a[i] if i < len(a) else None
        other = b[i] if i < len(b) else None
        if at == "#" or other == "#":
            return True
        if at != other and (at != "+" or other is None) and (other != "+" or at is None):
            return False
    return True


def given(ids, number, sub, subs):
    """
    Raise ValueError when the Subscription `sub` cannot have the app's own identifier `number`
    (int), as one of `subs` (list) has it that overlaps it: nobody could tell whose copy one is.
    """
    for other in subs:
        if (
            other is not sub
            and ids.get(other.filter) == -number
            and overlap(other.filter, sub.filter)
        ):
            raise ValueError(
                "subscription_identifier %d of %r: %r has it and has topics in common with it:"
                " give each its own" % (number, sub.filter, other.filter)
            )


def declared(ids, again, sub, subs):
    """
    Note which filters the new Subscription `sub` overlaps. One that was asked for without an
    identifier is asked for again.

    ids    see above
    again  list, to it the filters are added that the broker may have already
    subs   list of the other Subscriptions
    """
    if len(ids) > len(subs) + 1:  # some were taken back
        for name in set(ids) - {each.filter for each in subs + [sub]}:
            del ids[name]
    name = sub.filter
    head = name.split("+", 1)[0].split("#", 1)[0].rstrip("/")
    if name.startswith("$share/"):
        head = ""
    for other in subs:
        there = other.filter[: len(head)]  # most of many differ there
        if there == head or "+" in there or "#" in there or there[:1] == "$":
            there = head
        if there != head or not overlap(other.filter, name):
            continue
        for each in (other, sub):
            # one of the app's own may be that of an earlier Subscription to it
            if each.filter not in ids or ids[each.filter] < 0 and not each.properties:
                ids[each.filter] = 0
                if each.asked or each.granted in (0, 1, 2):
                    again.append(each.filter)
                    each.granted = None
                    each.asked = False


def apart(sub, part):
    """Return whether `sub` needs another identifier than the Subscriptions `part` (list)."""
    return True in [overlap(sub.filter, each.filter) for each in part]


def identify(ids, part):
    """
    Return the identifier for the Subscriptions `part` (list), 1 to 268,435,455. It follows from
    their filters, so that one that an earlier program left in the session means the same.
    """
    number = crc32(b"\0".join([sub.data for sub in part])) % 0xFFFFFFF + 1
    for sub in part:
        ids[sub.filter] = number
    return number


def wanting(ids, subs, said):
    """
    Return whose copy it is that came, as (list of those of `subs`, common).

    subs    list of the Subscriptions that match its topic
    said    dict, its properties; identifiers that are not the app's own are taken out of it
    common  bool, whether it is the copy of those that get none of their own, as the broker has not
            granted their filters: that of the first that it has. None where that is not known, as
            for an identifier that an earlier program left: it is for all then
    """
    numbers = said["subscription_identifier"]
    named = [sub for sub in subs if abs(ids.get(sub.filter, 0)) in numbers]
    own = [  # it is granted, or may be so any moment
        sub
        for sub in subs
        if ids.get(sub.filter) and (sub.granted in (0, 1, 2) or sub.granted is None and sub.asked)
    ]
    common = None
    if named:
        if own:
            common = own[0] in named
        if common is not False:
            named += [sub for sub in subs if sub not in named and sub not in own]
        subs = named
    elif own and [number for number in ids.values() if abs(number) in numbers]:
        subs = named  # it is the copy of a filter that was taken back
        common = False
    numbers = [n for n in numbers if n not in ids.values()]
    if numbers:
        said["subscription_identifier"] = numbers
    else:
        del said["subscription_identifier"]
    return subs, common


def offer(ids, dispatcher, message):
    """Queue `message`, a copy with identifiers, for those whose copy it is."""
    topic = message.topic
    subs = dispatcher.subscriptions
    if len(subs) > 4:  # as in dispatch
        subs = dispatcher.candidates(topic)
    if not dispatcher.index:
        subs = [sub for sub in subs if matches(sub.filter, topic)]
    wants, common = wanting(ids, subs, message.properties)
    if not message.properties:
        message.properties = None
    handled = False
    for sub in subs:
        if sub.handler:
            handled = True
            if sub in wants:
                dispatcher.queue(sub, message)
    if message.claims:
        return
    if dispatcher.open and not handled and (common is not False or message.retain):
        dispatcher.queue(dispatcher.inbox, message)
    elif handled or common is False:
        message.done = True  # whoever wants it gets another copy
