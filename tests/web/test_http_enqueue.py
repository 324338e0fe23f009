"""POST /jobs/enqueue: one job or many, their fields, and how payloads are kept."""

import json
from urllib.parse import quote

import pytest
from serving import check_problem

NDJSON = {"Content-Type": "application/x-ndjson"}
SHOWN = ["id", "status", "queue", "type", "priority", "attempts", "leases", "created_at"]


async def queued(server):
    return (await server.get("/queues/default")).json["jobs"]["queued"]


# -- one --------------------------------------------------------------------------------------------


async def test_an_enqueue_returns_the_job_without_its_payload(server):
    answer = await server.post(
        "/jobs/enqueue", {"type": "email", "queue": "mail", "priority": -3, "payload": {"to": "ada"}}
    )
    assert answer.status == 201
    assert answer.headers["location"] == "/jobs/1"
    assert answer.body == (
        b'{"id":1,"status":"queued","queue":"mail","type":"email","priority":-3,"attempts":0,"leases":0,'
        b'"created_at":"2027-01-15T08:00:00.000Z"}\n'
    )
    assert (await server.get(answer.headers["location"])).json["payload"] == {"to": "ada"}


async def test_fields_that_are_left_out_have_defaults(server):
    job = (await server.post("/jobs/enqueue", {"type": "x"})).json
    assert (job["queue"], job["priority"]) == ("default", 0)
    assert (await server.job(1))["payload"] is None


async def test_ids_grow(server):
    assert [await server.enqueue() for _ in range(3)] == [1, 2, 3]


async def test_the_type_is_required(server):
    for body in (b"", b"{}", b"  \r\n\t ", b'{"queue":"a"}', b'{"type":null}', b'{"type":"a","type":null}'):
        problem = check_problem(await server.post("/jobs/enqueue", body), 400, "missing_field", field="type")
        assert "type" in problem["detail"]


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("queue", ["a", "_", "0", "A.b:c-d_e", "x" * 128],
        ["", "x" * 129, "-a", ".a", ":a", "a b", "a/b", "é", "a\n"]),
        ("type", ["a", "é ✓ \u00a0", " ", "x" * 256, "✓" * 256],
        ["", "x" * 257, "a\nb", "\x00", "\x7f", "\x1f"]),
        ("priority", [0, 1, -1, 2**31 - 1, -(2**31)],
        [2**31, -(2**31) - 1, 2**70, 1.0, 0.5, "1", True, [], {}]),
    ],
    ids=["queue", "type", "priority"],
)  # fmt: skip
async def test_the_fields_of_a_job_have_limits(server, field, good, bad):
    for value in good:
        answer = await server.post("/jobs/enqueue", {"type": "x", field: value})
        assert answer.status == 201, value
        assert answer.json[field] == value
    before = (await server.get("/stats")).json["jobs"]["queued"]
    for value in bad:
        for job in ({"type": "x", field: value}, {"TYPE": "x", field.upper(): value}):
            problem = check_problem(
                await server.post("/jobs/enqueue", job), 400, "invalid_field", field=field
            )
            assert field in problem["detail"], value
    assert (await server.get("/stats")).json["jobs"]["queued"] == before


async def test_field_names_match_in_any_letter_case(server):
    answer = await server.post("/jobs/enqueue", '{"Type":"a","QUEUE":"q","Priority":7,"PayLoad":{"Case":1}}')
    assert answer.status == 201
    job = await server.job(1)
    assert (job["type"], job["queue"], job["priority"], job["payload"]) == ("a", "q", 7, {"Case": 1})


async def test_null_means_left_out(server):
    answer = await server.post("/jobs/enqueue", '{"type":"a","queue":null,"priority":null,"payload":null}')
    assert (answer.json["queue"], answer.json["priority"]) == ("default", 0)
    assert (await server.get("/jobs/1")).body.endswith(b',"payload":null}\n')


async def test_fields_that_the_queue_sets_are_accepted_and_ignored(server):
    """A fetched job can be enqueued again unchanged, and becomes a new job."""
    await server.enqueue(type="again", queue="q", priority=4, payload=[1, 2])
    job = await server.dequeue(queue="q", consumer="me")
    await server.post(f"/jobs/{job['id']}/conclude", {"lease": job["lease"], "result": {"sent": True}})
    for seen in (job, await server.job(1)):
        for body in (
            json.dumps(seen),
            json.dumps(seen).upper().replace("NULL", "null").replace("TRUE", "true"),
        ):
            answer = await server.post("/jobs/enqueue", body)
            assert answer.status == 201, answer
            assert answer.json["id"] > 1
            assert (answer.json["status"], answer.json["attempts"]) == ("queued", 0)
            new = await server.job(answer.json["id"])
            assert new["payload"] == [1, 2]
            assert "result" not in new
            assert "consumer" not in new
    odd = {"type": "x", "id": "not a number", "status": 7, "result": [[]], "etag": "x", "origin": 1,
    "history": 0,
           "expires_at": 5, "progress": "x", "message": 1, "duplicate": 1, "dead_from": 1, "error": {},
           "reason": 0}  # fmt: skip
    assert (await server.post("/jobs/enqueue", odd)).status == 201


async def test_an_unknown_field_is_refused_with_the_nearest_known_name(server):
    for name, nearest in [
        ("typ", "type"), ("queu", "queue"), ("prio", "priority"), ("Paylod", "payload"), ("xyzzy", None),
        ("", None),
    ]:  # fmt: skip
        answer = await server.post("/jobs/enqueue", {"type": "x", name: 1})
        assert check_problem(answer, 400, "unknown_field", field=name).get("nearest") == nearest
    assert await queued(server) == 0


async def test_the_last_of_a_repeated_key_counts(server):
    answer = await server.post("/jobs/enqueue", '{"type":"a","type":"b","priority":1,"priority":2}')
    assert (answer.json["type"], answer.json["priority"]) == ("b", 2)


# -- options in the query ---------------------------------------------------------------------------


async def test_options_may_be_sent_in_the_query(server):
    for path in (
        "/jobs/enqueue?type=a%20b&queue=q&priority=-5",
        "/jobs/enqueue?type=a+b&QUEUE=q&Priority=-5",
    ):
        job = (await server.post(path)).json
        assert (job["type"], job["queue"], job["priority"]) == ("a b", "q", -5)
    job = (await server.post("/jobs/enqueue?queue=q&type=caf%C3%A9", {"payload": 1})).json
    assert (job["type"], job["queue"]) == ("café", "q")


async def test_an_option_may_be_repeated_only_with_the_same_value(server):
    assert (await server.post("/jobs/enqueue?type=a&type=a", {"type": "a"})).status == 201
    for path, body, field in [
        ("/jobs/enqueue?type=a", {"type": "b"}, "type"), ("/jobs/enqueue?type=a&type=b", None, "type"),
        ("/jobs/enqueue?type=a&TYPE=b", None, "type"),
        ("/jobs/enqueue?priority=1", {"type": "b", "priority": 2}, "priority"),
    ]:  # fmt: skip
        problem = check_problem(await server.post(path, body), 400, "invalid_field", field=field)
        assert "twice" in problem["detail"]


async def test_an_integer_in_a_query_is_digits(server):
    for value in ("", "1.0", "1e3", "x", "0x1", "²", "1 ", "--1", "9" * 30, "2147483648", "-2147483649"):
        answer = await server.post(f"/jobs/enqueue?type=a&priority={quote(value)}")
        check_problem(answer, 400, "invalid_field", field="priority")


async def test_a_payload_does_not_belong_in_the_query(server):
    problem = check_problem(await server.post("/jobs/enqueue?type=a&payload=1"), 400, "invalid_field")
    assert "body" in problem["detail"]


async def test_a_query_that_is_not_utf8_is_refused(server):
    for query in ("type=%FF", "%FF=a", "type=%C3"):
        check_problem(await server.post(f"/jobs/enqueue?{query}"), 400, "invalid_field")


# -- many -------------------------------------------------------------------------------------------


async def test_an_array_enqueues_many_jobs(server):
    answer = await server.post("/jobs/enqueue", [{"type": "a", "payload": 1}, {"type": "b"}, {"type": "c"}])
    assert answer.status == 201
    assert "location" not in answer.headers
    assert list(answer.json) == ["jobs"]
    assert [(job["id"], job["type"]) for job in answer.json["jobs"]] == [(1, "a"), (2, "b"), (3, "c")]
    assert all(list(job) == SHOWN for job in answer.json["jobs"])
    assert answer.body.count(b"\n") == 1


async def test_an_array_of_one_is_answered_as_a_list(server):
    assert len((await server.post("/jobs/enqueue", [{"type": "a"}])).json["jobs"]) == 1


async def test_an_ndjson_body_of_one_line_is_answered_as_a_list(server):
    for type in (
        "application/x-ndjson", "application/jsonl", "application/x-ndjson; charset=utf-8",
        "application/jsonl;x=y",
        "Application/X-NDJSON", "application/jsonl ; charset=utf-8",
    ):  # fmt: skip
        for body, types in [('{"type":"a"}', ["a"]), ('{"type":"a"}\n{"type":"b"}\n', ["a", "b"])]:
            answer = await server.post("/jobs/enqueue", body, {"Content-Type": type})
            assert answer.status == 201
            assert [job["type"] for job in answer.json["jobs"]] == types


async def test_a_second_line_makes_it_a_request_for_many(server):
    for body in (
        '{"type":"a"}\n{"type":"b"}', '{"type":"a"}\n{"type":"b"}\n', '{"type":"a"}\r\n{"type":"b"}\r\n',
        '\n\n  {"type":"a"}\n\n \t\n{"type":"b"}  \n\n', '{"TYPE":"a"}\n{"type":"b","queue":null}',
        '{"type":"a","id":7}\n{"type":"b"}',
    ):  # fmt: skip
        answer = await server.post("/jobs/enqueue", body)
        assert answer.status == 201, answer
        assert [job["type"] for job in answer.json["jobs"]] == ["a", "b"]
        assert "location" not in answer.headers


async def test_one_job_over_several_lines_is_one(server):
    answer = await server.post("/jobs/enqueue", '\n{\n "type":\n"a",\r\n"payload": [\n1,\n2]\n}\n')
    assert answer.status == 201
    assert answer.json["type"] == "a"
    assert (await server.get("/jobs/1")).body.endswith(b'"payload":[ 1, 2]}\n')


async def test_two_values_on_one_line_are_refused_with_the_usual_reason(server):
    for body in (
        '{"type":"a"}{"type":"b"}', '{"type":"a"} {"type":"b"}', '{"type":"a"}  {"type":"b"}\n',
        '{"TYPE":"a"}{"type":"b"}', '{"type":"a","id":1}{"type":"b"}',
    ):  # fmt: skip
        problem = check_problem(await server.post("/jobs/enqueue", body), 400, "invalid_json")
        assert "--data-binary" in problem["detail"]
        problem = check_problem(
            await server.post("/jobs/enqueue", body, NDJSON), 400, "invalid_json", index=0
        )
        assert "--data-binary" in problem["detail"]
    assert await queued(server) == 0


async def test_two_values_on_a_later_line_say_which(server):
    body = '{"type":"a"}\n{"type":"b"}{"type":"c"}\n'
    problem = check_problem(await server.post("/jobs/enqueue", body), 400, "invalid_json", index=1)
    assert "--data-binary" in problem["detail"]
    assert await queued(server) == 0


async def test_an_empty_batch_is_refused(server):
    for body, headers in [("[]", {}), (" [ ] ", {}), ("", NDJSON), ("\n \n", NDJSON), ("[]", NDJSON)]:
        problem = check_problem(await server.post("/jobs/enqueue", body, headers), 400, "invalid_field")
        assert "1" in problem["detail"]


async def test_a_batch_of_a_thousand_is_accepted_and_one_more_is_refused(server):
    for form in ("[{}]", "{}"):
        between = "," if form == "[{}]" else "\n"

        def jobs(count, form=form, between=between):
            return form.format(between.join(['{"type":"x"}'] * count))

        before = await queued(server)
        problem = check_problem(
            await server.post("/jobs/enqueue", jobs(1001)), 400, "invalid_field",
            limit=1000, setting="JOBQUEUE_MAX_BATCH",
        )  # fmt: skip
        assert "1,000" in problem["detail"]
        assert await queued(server) == before
        answer = await server.post("/jobs/enqueue", jobs(1000))
        ids = [job["id"] for job in answer.json["jobs"]]
        assert ids == list(range(ids[0], ids[0] + 1000))
        assert await queued(server) == before + 1000


async def test_the_first_bad_job_is_named_and_nothing_is_enqueued(server):
    for bad, code, field in [
        ('{"type":"x","priority":"1"}', "invalid_field", "priority"),
        ('{"queue":"a"}', "missing_field", "type"),
        ('{"type":"x","queue":"a b"}', "invalid_field", "queue"),
        ('{"type":"x","typ":1}', "unknown_field", "typ"),
        ('{"type":""}', "invalid_field", "type"), ("7", "invalid_field", None),
        ("null", "invalid_field", None),
        ('"x"', "invalid_field", None), ("[]", "invalid_field", None),
    ]:  # fmt: skip
        for index in (0, 2):
            jobs = ['{"type":"x"}'] * 4
            jobs[index] = bad
            check_problem(
                await server.post("/jobs/enqueue", "[" + ",".join(jobs) + "]"),
                400,
                code,
                index=index,
                field=field,
            )
            if jobs[0] != "[]":  # that would be an array, and something behind it
                answer = await server.post("/jobs/enqueue", "\n".join(jobs), NDJSON)
                check_problem(answer, 400, code, index=index, field=field)
    assert await queued(server) == 0
    assert await server.enqueue() == 1


async def test_the_first_of_two_bad_jobs_is_named(server):
    body = [{"type": "x"}, {"type": "x", "priority": "no"}, {"typ": 1}]
    check_problem(await server.post("/jobs/enqueue", body), 400, "invalid_field", index=1, field="priority")


async def test_a_line_that_is_not_json_is_named(server):
    for bad in ("{", '{"type":"x",}', "nonsense", '{"type":"x"', "'x'"):
        body = '{"type":"x"}\n{"type":"x"}\n' + bad
        check_problem(await server.post("/jobs/enqueue", body), 400, "invalid_json", index=2)
    assert await queued(server) == 0


async def test_options_in_the_query_apply_to_all_jobs(server):
    for body in (
        [{"payload": 1}, {"payload": 2, "priority": 9}],
        '{"payload":1}\n{"payload":2,"priority":9}',
    ):
        answer = await server.post("/jobs/enqueue?type=t&queue=q", body)
        assert [(job["type"], job["queue"], job["priority"]) for job in answer.json["jobs"]] == [("t", "q",
        0), ("t", "q", 9)]  # fmt: skip
    problem = await server.post("/jobs/enqueue?type=t", [{"type": "t"}, {"type": "u"}])
    check_problem(problem, 400, "invalid_field", index=1, field="type")


# -- payloads ---------------------------------------------------------------------------------------

AS_IT_IS = [
    "null", "true", "false", "0", "-0", "1.0", "1.10", "1e999", "-1E+400", "1e-999", "0.1",
    "123456789012345678901234567890",
    "9007199254740993", "3.141592653589793238462643383279", '""', '"é ✓ 𝄞"',
    '"\\u00e9 \\ud834\\udd1e \\/ \\" \\\\ \\n\\t\\b\\f\\r"',
    '"\x7f"', "[]", "{}", "[1,2,[3]]", '{"b":1,"a":2,"b":3}', '{"id":9,"lease":"x","payload":{"status":1}}',
    '{ "a" : [ 1 , 2 ] }',
    '"</script><!--"', '"\u2028\u2029"', '"\ufeff"', '[[[[["deep"]]]]]', '"a,b]}\\"{["',
    "{\t\"tab\"\t:\t1\t}",
]  # fmt: skip


async def test_a_payload_is_returned_byte_for_byte(server):
    for payload in AS_IT_IS:
        for body in (f'{{"type":"x","payload":{payload}}}', f'{{"Payload": {payload} ,"TYPE":"x"}}'):
            answer = await server.post("/jobs/enqueue", body)
            assert answer.status == 201, (payload, answer)
            expected = f'"payload":{payload}}}\n'.encode()
            assert (await server.get(answer.headers["location"])).body.endswith(expected), payload
            assert (await server.post("/jobs/dequeue")).body.endswith(expected), payload


async def test_a_payload_in_a_batch_is_returned_byte_for_byte(server):
    jobs = [f'{{"type":"x","payload":{payload}}}' for payload in AS_IT_IS]
    for body, headers in [("[" + ",\n".join(jobs) + "]", {}), ("\n".join(jobs), NDJSON)]:
        assert (await server.post("/jobs/enqueue", body, headers)).status == 201
        got = (await server.post("/jobs/dequeue?count=100")).body.decode()
        at = 0
        for payload in AS_IT_IS:
            at = got.index(f'"payload":{payload}}}', at) + 1
        assert got.endswith("}]}\n")


async def test_line_breaks_between_tokens_become_spaces_and_those_in_strings_stay_escaped(server):
    body = '{"type":"x","payload":\r\n{\n"a\\n":\r[\n1,\r\n"\\r\\n"]\n}\n}'
    assert (await server.post("/jobs/enqueue", body)).status == 201
    got = (await server.get("/jobs/1")).body
    assert got.endswith(b'"payload":{ "a\\n": [ 1,  "\\r\\n"] }}\n')
    assert got.count(b"\n") == 1


async def test_a_payload_with_a_line_break_survives_in_each_form(server):
    for body in (
        '{"type":"x","payload":[1,\n2]}',
        '[{"type":"x","payload":[1,\n2]}]',
        '{"Type":"x","payload":[1,\n2]}',
    ):
        await server.post("/jobs/enqueue", body)
        assert (await server.post("/jobs/dequeue")).body.endswith(b'"payload":[1, 2]}\n')


async def test_a_payload_may_have_a_mebibyte(server):
    size = 1024 * 1024 - len('""')
    answer = await server.post("/jobs/enqueue", '{"type":"x","payload":"' + "y" * size + '"}')
    assert answer.status == 201
    assert len((await server.get("/jobs/1")).json["payload"]) == size
    answer = await server.post("/jobs/enqueue", '{"type":"x","payload":"' + "y" * (size + 1) + '"}')
    check_problem(answer, 413, "body_too_large", limit=1024 * 1024, setting="JOBQUEUE_MAX_BODY")
