"""
A module for each command, found by listing this folder. Each has:

NAME                    what the user types
SUMMARY                 one line for `mqttls --help`
add(parser)             adds its arguments to an argparse parser; --dir and --json are there
run(arguments, report)  does it; returns the exit status: 0 good, 1 a problem was found
"""
