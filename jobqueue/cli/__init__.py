"""The command line: `jobqueue COMMAND`, which is `python -m jobqueue COMMAND` too.

`commands` is the table of all commands. A command is a `Verb`: a function that declares its arguments, and
one that runs it. A command about a server makes one documented call of `jobqueue.client`; those of the server
(`serve`, `token`, `journal`) import it when they run.
"""
