-- Send, receive and delete by the SQS protocol, for wrk: each thread has one connection. A server may close it.
--   wrk -t8 -c8 -d10s -s tests/bench/sqs.lua http://127.0.0.1:8080/ 000000000000
local actions = { "SendMessage", "ReceiveMessage", "DeleteMessage" }
local step, handle, url = 0, "", ""

function init(arguments)
    url = string.format("%s://%s:%s/%s/bench", wrk.scheme, wrk.host, wrk.port, arguments[1])
    wrk.headers["Content-Type"] = "application/x-amz-json-1.0"
    wrk.headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=bench/20261124/us-east-1/sqs/aws4_request, "
        .. "SignedHeaders=host, Signature=" .. string.rep("0", 64)
end

function request()
    local action = actions[step % 3 + 1]
    local more = ({
        SendMessage = ',"MessageBody":"' .. string.rep("x", 100) .. '"',
        ReceiveMessage = "",
        DeleteMessage = ',"ReceiptHandle":"' .. handle .. '"',
    })[action]
    wrk.headers["X-Amz-Target"] = "AmazonSQS." .. action
    return wrk.format("POST", "/", nil, '{"QueueUrl":"' .. url .. '"' .. more .. "}")
end

function response(status, headers, body)
    handle = string.match(body, '"ReceiptHandle": ?"([^"]+)"') or handle
    step = step + 1
end
