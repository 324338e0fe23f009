"""The queue itself: pure and synchronous, without a clock, randomness or I/O. The caller passes the time.

    queue                                    `JobQueue`: the verbs
    admin admission dedup edit explain       functions on the state
    forgetting leasing matching restore
    transfer
    state                                    `QueueState`: all jobs and queues; the steps of a job
    named_queue key_group lane limiter       structures that know no status
    timers retention waiters job_index
    counts unique_keys idempotency policy
    limits

A module imports only modules below it, or of its own row.
"""
