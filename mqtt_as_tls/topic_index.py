"""
Which of many subscriptions want a topic, by its levels: what `router.matches` says of each, at the
cost of the topic's depth and not of their number.
"""


def index(subs):
    """
    Return a function that finds the Subscriptions for a topic: topics in a dict, filters with
    wildcards in a tree of levels.

    subs  list of Subscriptions, which must stay as it is while the function is used

    The function takes a topic (str, valid), and returns those whose filter matches it, in their
    order (list). Both raise MemoryError.
    """
    topics = {}  # topic: positions in `subs` (tuple)
    tree = {}  # level: the tree below it; "#", and None for filters that end here: positions
    depth = 0  # levels of the tree
    for at, sub in enumerate(subs):
        key = sub.filter
        if key.startswith("$share/"):
            # for a broker that does not share it is a topic
            topics[key] = topics.get(key, ()) + (at,)
            key = key.split("/", 2)[2]
        node = topics
        levels = key.split("/")
        if "+" in levels or "#" in levels:
            key = levels.pop() if levels[-1] == "#" else None
            depth = max(depth, len(levels))
            node = tree
            for level in levels:
                node = node.setdefault(level, {})
        node[key] = node.get(key, ()) + (at,)

    def find(topic):
        found = list(topics.get(topic, ()))
        if tree:
            nodes = [tree]
            wild = not topic.startswith("$")  # [MQTT-4.7.2-1]
            levels = topic.split("/", depth)  # what is deeper is one level, for # alone
            levels.append(None)
            for level in levels:
                below = []
                for node in nodes:
                    if level in node:
                        below.append(node[level])
                    if wild:
                        if "#" in node:  # after the last level too: a/# matches a
                            found += node["#"]
                        if level is not None and "+" in node:
                            below.append(node["+"])
                wild = True
                nodes = below
            for ends in nodes:
                found += ends
            found.sort()
        for i, at in enumerate(found):
            found[i] = subs[at]
        return found

    return find
