"""The calls of the API. Each reads its request, calls the engine once, and renders the answer.

An operation takes the `Context` of its caller and a `Request`, and returns a `Response`, a `Deferred`, a
`Stream` or an `Upload`. Expected failures are raised as `jobqueue.errors`; the dispatcher turns them into
answers.
"""
