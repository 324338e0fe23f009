#!/bin/sh
# The worker of jobqueue 0.0.0: takes jobs and runs a command for each. It needs curl and nothing else.
#
#   curl -sSf http://localhost:8080/worker.sh | sh -s -- thumbs -- ./make_thumb
#
# The command gets the payload on its standard input, and JOB_ID JOB_QUEUE JOB_TYPE JOB_PRIORITY JOB_ATTEMPTS
# JOB_LEASE JOB_LEASE_FOR JOB_LEASE_EXPIRES_AT JOB_CONTENT_TYPE JOB_URL in its environment. Its exit status decides
# what happens to the job: 0 concludes it, with the standard output as its result; 75 releases it, to be retried
# later; any other status fails it, with the end of the standard error as its error. The worker renews the lease
# while the command runs. If the job is cancelled or its lease is lost, the command gets a TERM, and a KILL five
# seconds later.
#
# On TERM, INT or HUP the worker takes no more jobs and waits for the command. After -g seconds, or on a second
# signal, it stops the command and releases the job.
set -u
mask=$(umask) # the command's
umask 077

version=0.0.0
url=${JOBQUEUE_URL:-http://localhost:8080}

usage() {
    cat <<USAGE
usage: worker.sh [options] QUEUE[,QUEUE...] [--] COMMAND [ARGUMENT...]
  -j N        number of jobs at once (1)
  -w SECONDS  longest wait for a job in one request (30; 0 with -o)
  -l SECONDS  duration of the lease (the job's own, else the queue's); it is renewed after each third
  -d SECONDS  delay of a job whose command exits with 75 (10)
  -g SECONDS  how long a command may run on after a signal (8)
  -n NAME     name of the consumer (host and pid)
  -t TYPE     media type of the command's output (text/plain), such as application/json
  -o          exit when there is no job
  -v          log the outcome of each job
  -h, -V      show this text; show the version
\$JOBQUEUE_URL is the address of the server ($url), \$JOBQUEUE_TOKEN its access token, if it requires one.
Several addresses of one queue have commas between them: the worker goes on to the next one when a server is away.
USAGE
}

say() {
    echo "worker: $*" >&2
}

die() {
    say "$*"
    exit 2
}

main() {
    processes=1 wait='' lease_for='' rest_for=10 grace=8 name='' type=text/plain once='' verbose=''
    while getopts j:w:l:d:g:n:t:ovhV option; do
        case $option in
            j) processes=$OPTARG ;;
            w) wait=$OPTARG ;;
            l) lease_for=$OPTARG ;;
            d) rest_for=$OPTARG ;;
            g) grace=$OPTARG ;;
            n) name=$OPTARG ;;
            t) type=$OPTARG ;;
            o) once=1 ;;
            v) verbose=1 ;;
            h) usage && exit 0 ;;
            V) echo "jobqueue worker $version" && exit 0 ;;
            *) usage >&2 && exit 2 ;;
        esac
    done
    shift $((OPTIND - 1))
    [ $# -gt 0 ] || { usage >&2 && exit 2; }
    if [ -n "$once" ]; then wait=${wait:-0}; else wait=${wait:-30}; fi
    queues=$1
    shift
    [ "${1:-}" != -- ] || shift
    [ $# -gt 0 ] || die 'the command is missing: worker.sh QUEUE -- COMMAND'
    case $queues in '' | *[!A-Za-z0-9_.:,-]*) die "not the name of a queue: $queues" ;; esac
    for number in "$processes" "$wait" "${lease_for:-1}" "$rest_for" "$grace"; do
        case $number in '' | *[!0-9]* | 0?*) die "not a whole number: $number" ;; esac
    done
    [ "$processes" -gt 0 ] || die '-j must be 1 or more'
    command -v curl >/dev/null || die 'curl is not installed'
    command -v "$1" >/dev/null || die "there is no command $1"
    setsid=$(command -v setsid) || setsid=''
    urls=$(printf %s "$url" | tr -d ' ')
    url=${urls%%,*} url=${url%/}
    name=${name:-$(uname -n)-$$}

    dir='' slots='' stopping='' number=0 naps='' ended=''
    trap '[ -z "$dir" ] || rm -rf "$dir"' EXIT
    trap 'stop' TERM INT HUP
    trap 'ended=1; wake' USR2 # from a slot that ends
    trap '' PIPE # the reader of standard error may be gone
    folder=${TMPDIR:-/tmp}/jobqueue-worker.$$.$(random)
    mkdir "$folder" || exit 2
    dir=$folder
    mkfifo "$dir/alive" || exit 2
    exec 3<>"$dir/alive"
    say "waits for jobs of $queues at $urls"
    watch &
    watcher=$!
    while [ "$number" -lt "$processes" ]; do
        number=$((number + 1))
        mkdir "$dir/$number" || exit 2
        slot "$number" "$@" &
        slots="$slots $!"
    done
    [ -z "$stopping" ] || tell_slots TERM # a slot may have started at the moment of the signal
    # In naps: a bash loses a signal that comes at the moment at which it begins to wait, until that wait is over.
    while ended='' && slots_run; do
        sleep 3 &
        naps=$!
        [ -z "$ended" ] || wake
        await "$naps"
        naps=''
    done
    for pid in $slots; do await "$pid"; done
    exec 3>&- # so the watcher ends
    await "$watcher"
    [ ! -e "$dir/refused" ]
    exit
}

# Tells the slots to stop; on the second call, to stop their commands at once.
stop() {
    [ -z "$dir" ] || true >"$dir/stop"
    if [ -z "$stopping" ]; then tell_slots TERM; else tell_slots USR1; fi
    stopping=1
}

# Succeeds if one of the slots has neither ended nor been killed.
slots_run() {
    at=0
    for pid in $slots; do
        at=$((at + 1))
        if [ -d "$dir/$at" ] && kill -0 "$pid" 2>/dev/null; then return 0; fi
    done
    return 1
}

wake() {
    [ -z "$naps" ] || kill -s KILL "$naps" 2>/dev/null
}

tell_slots() {
    # shellcheck disable=SC2086  # one word for each
    kill -s "$1" $slots 2>/dev/null
}

# Stops the slots when the first process is killed: the other end of the pipe is closed then.
watch() {
    trap - EXIT
    trap '' TERM INT HUP
    exec 4<"$dir/alive" 3>&- # in this order: opening for reading waits for a writer
    cat <&4
    rm "$dir/alive"
    for file in "$dir"/*/pid; do
        read -r pid <"$file" && kill -s TERM "$pid"
    done
} >/dev/null 2>&1

# header NAME VALUE: prints a line for curl's configuration. Arguments would be visible to all users of the machine.
header() {
    printf 'header = "%s: %s"\n' "$1" "$(printf %s "$2" | sed 's/[\\"]/\\&/g')"
}

random() {
    od -An -N2 -tu2 /dev/urandom | tr -d ' '
}

# await PID: waits until a process has ended, also if a signal interrupts the wait. It does not ask for the exit status:
# a bash whose wait was interrupted may have lost it, and would then wait for ever.
await() {
    while kill -0 "$1" 2>/dev/null; do
        wait "$1" 2>/dev/null
        [ $? -ne 127 ] || return 0
    done
}

# -- one job after the other ---------------------------------------------------------------------------------------

# slot NUMBER COMMAND...: runs in a process of its own.
slot() {
    exec 3>&-
    trap - EXIT
    give_back='' busy='' polls='' command='' id='' delay=1
    trap 'stopping=1; interrupt' TERM INT HUP
    trap 'stopping=1 give_back=1; interrupt; stop_command' USR1
    trap 'interrupt' USR2
    own=$dir/$1
    sh -c 'echo "$PPID"' >"$own/pid"
    read -r me <"$own/pid"
    {
        header Queue-Consumer "$name-$1"
        [ -z "${JOBQUEUE_TOKEN:-}" ] || header Authorization "Bearer $JOBQUEUE_TOKEN"
    } >"$own/curl"
    true >"$own/command"
    lease=''
    shift
    [ ! -e "$dir/stop" ] || stopping=1 # the signal came before the traps were set
    options="raw=1&queues=$queues&wait=$wait${lease_for:+"&lease_for=$lease_for"}"
    while is_wanted; do
        take || break
        while [ -n "$id" ]; do
            if ! is_wanted; then
                release 0
            elif [ -z "$whole" ]; then
                say "job $id: its payload is incomplete; is there space in $dir?"
                release "$rest_for"
            else
                work "$@"
            fi
        done
    done
    rm -rf "$own"
    rmdir "$dir" 2>/dev/null # the last slot does it if the first process is gone
    kill -s USR2 $$ 2>/dev/null
    exit
}

# Succeeds unless a signal came or the first process is gone, which would have passed it on.
is_wanted() {
    [ -z "$stopping" ] && kill -0 $$ 2>/dev/null
}

# Ends what may take long: a wait for a job, a sleep. It uses KILL: between a fork and the exec a child still has the
# traps of its parent, which would swallow a TERM. A dequeue may be receiving a job at this moment, so it gets a moment.
interrupt() {
    [ -z "$polls" ] || sleep 0.2 2>/dev/null || sleep 1
    [ -z "$busy" ] || kill -s KILL "$busy" 2>/dev/null
}

# request PATH ARGUMENT...: sends a request. Sets code to the status of the answer (000: none), id to the job in it, if
# any, and whole if its payload is complete. The head overwrites a file that already has its size, so that it can be
# written on a full disk too.
request() {
    at=$1
    shift
    true >"$own/body"
    fill head
    proof | curl -q -g -s -K "$own/curl" -K - -X POST -D - -o "$own/body" -w '%{http_code} %{exitcode}\n' \
        --connect-timeout 15 --speed-limit 1 --speed-time "$((wait + 15))" "$@" "$url$at" 1<>"$own/head" 2>/dev/null &
    asking=$!
    case $at in
        *wait=*)
            busy=$asking polls=1
            [ -z "$stopping" ] || interrupt
            ;;
    esac
    await "$asking"
    read_head
    case $polls$stopping in 11) ;; *) try_next "$code" ;; esac # 11: the worker itself has ended the wait
    busy='' polls=''
}

# try_next CODE: goes on to the next address after this answer, if the server is away and there are several.
try_next() {
    case $urls,$1 in
        *,*,000 | *,*,502 | *,*,503 | *,*,504)
            urls=${urls#*,},${urls%%,*}
            url=${urls%%,*} url=${url%/}
            ;;
    esac
}

# fill FILE: gives a file of the slot its size. Fails if there is no space.
fill() {
    printf '%016384d' 0 2>/dev/null 1<>"$own/$1"
}

# Succeeds if there is space for the head of an answer and for a small payload.
has_room() {
    fill head && fill body
}

# Prints the lease of the current job as a line for curl's configuration.
proof() {
    [ -z "$lease" ] || printf 'header = "Job-Lease: %s"\n' "$lease"
}

# take: dequeues; sets id if there is a job. Fails if no further request makes sense.
take() {
    lease='' after=''
    has_room || { rest "no space in $dir" && return; }
    request "/jobs/dequeue?$options"
    case $code in
        200) delay=1 ;;
        204)
            delay=1
            [ -z "$once" ] || return 1
            ;;
        000 | 408 | 429 | 5??) [ -n "$stopping" ] || rest "no answer from $urls ($code)" ;;
        *)
            say "refused: $(cat "$own/body")"
            true >"$dir/refused"
            return 1
            ;;
    esac
}

# rest WHY: waits before a retry: longer each time, with jitter, and at least as long as Retry-After says, up to a minute.
rest() {
    [ "$delay" -gt 1 ] || say "$1; trying again"
    case $after in '' | *[!0-9]* | 0*) after=1 ;; ?) ;; [1-5]?) ;; *) after=60 ;; esac
    random=$(random)
    sleep "$((after + ${random:-0} % delay))" &
    busy=$!
    [ "$delay" -ge 30 ] || delay=$((delay * 2))
    [ -z "$stopping" ] || interrupt
    await "$busy"
    busy=''
}

# Reads the headers of an answer, and its status code after them.
read_head() {
    cr=$(printf '\r')
    code=000 ended=early id='' whole='' token='' total='' after=''
    while IFS= read -r line; do
        line=${line%"$cr"}
        value=${line#*: }
        case $line in
            [Jj]ob-[Ii]d:*) id=$value ;;
            [Jj]ob-[Qq]ueue:*) queue=$value ;;
            [Jj]ob-[Tt]ype:*) job_type=$value ;;
            [Jj]ob-[Pp]riority:*) priority=$value ;;
            [Jj]ob-[Aa]ttempts:*) attempts=$value ;;
            [Jj]ob-[Ll]ease:*) token=$value ;;
            [Jj]ob-[Ll]ease-[Ff]or:*) length=$value ;;
            [Jj]ob-[Ll]ease-[Ee]xpires-[Aa]t:*) expires=$value ;;
            [Cc]ontent-[Tt]ype:*) content_type=$value ;;
            [Cc]ontent-[Ll]ength:*) total=$value ;;
            [Rr]etry-[Aa]fter:*) after=$value ;;
            [0-9][0-9][0-9]' '*)
                # curl writes this line last. A shell reads byte by byte: what the file was filled with would take long.
                code=${line%% *} ended=${line#* }
                break
                ;;
        esac
    done <"$own/head"
    case $id$token in '' | *[!0-9A-Za-z_-]*) id='' ;; esac
    [ -n "$id" ] || return 0
    lease=$token size=$(($(wc -c <"$own/body")))
    # A proxy may have removed Content-Length, and an old curl does not print its exit code.
    case $ended in '' | 0) total=${total:-$size} ;; esac
    [ "$size" != "$total" ] || whole=1
    code=200 # also if the wait was interrupted at the moment at which the job came
}

# decode TEXT: removes percent-encoding.
decode() {
    printf '%s\n' "$1" | LC_ALL=C awk '{
        while ((at = index($0, "%")) > 0) {
            hex = toupper(substr($0, at + 1, 2))
            high = index("0123456789ABCDEF", substr(hex, 1, 1)) - 1
            low = index("0123456789ABCDEF", substr(hex, 2)) - 1
            printf "%s%c", substr($0, 1, at - 1), high * 16 + low
            $0 = substr($0, at + 3)
        }
        print
    }'
}

# -- one job -------------------------------------------------------------------------------------------------------

# work COMMAND...: runs the command for the current job and reports its outcome. Then id is empty, or the next job.
work() {
    job=$id told='' killer='' patience=''
    true >"$own/status"
    case $job_type in *%*) job_type=$(decode "$job_type") ;; esac
    attempt "$@" &
    attempt=$!
    every=${length%.*}
    every=$((${every:-3} / 3))
    [ "$every" -gt 0 ] || every=1
    [ "$every" -lt 4 ] || every=4 # so that a cancelled job is noticed soon
    while :; do
        [ -z "$stopping" ] || be_patient
        sleep "$every" &
        busy=$!
        if [ -s "$own/status" ] || { [ -n "$stopping" ] && [ -z "$patience$killer" ]; }; then interrupt; fi
        await "$busy"
        busy=''
        if [ -s "$own/status" ] || ! kill -0 "$attempt" 2>/dev/null; then break; fi
        [ -n "$told" ] || heartbeat
    done
    await "$attempt"
    [ -s "$own/status" ] || hit KILL # the process that runs the command was killed
    true >"$own/command"
    # shellcheck disable=SC2086  # one word for each, or none
    [ -z "$patience$killer" ] || kill -s KILL $patience $killer 2>/dev/null
    result=''
    read -r result <"$own/status"
    report "${result:-137}"
}

# attempt COMMAND...: runs the command in a process of its own, and wakes the slot when it has ended.
attempt() {
    trap 'signalled=1' TERM INT HUP
    trap '' USR1 USR2
    JOB_ID=$id JOB_QUEUE=$queue JOB_TYPE=$job_type JOB_PRIORITY=$priority JOB_ATTEMPTS=$attempts
    JOB_LEASE=$token JOB_LEASE_FOR=$length JOB_LEASE_EXPIRES_AT=$expires JOB_CONTENT_TYPE=$content_type
    JOB_URL=$url/jobs/$id JOBQUEUE_URL=$urls
    export JOB_ID JOB_QUEUE JOB_TYPE JOB_PRIORITY JOB_ATTEMPTS JOB_LEASE JOB_LEASE_FOR JOB_LEASE_EXPIRES_AT
    export JOB_CONTENT_TYPE JOB_URL JOBQUEUE_URL
    # In a process group of its own if possible, so that signals reach everything that the command started.
    (
        trap - TERM INT HUP USR1 USR2 PIPE
        umask "$mask"
        exec ${setsid:+"$setsid"} "$@"
    ) <"$own/body" >"$own/out" 2>"$own/err" &
    command=$!
    echo "$command" >"$own/command"
    while :; do
        signalled=''
        wait "$command"
        status=$?
        if [ -z "$signalled" ] || ! kill -0 "$command" 2>/dev/null; then break; fi
    done
    true >"$own/body" # its space may be needed
    echo "$status" >"$own/status"
    kill -s USR2 "$me" 2>/dev/null
    exit 0
}

# hit SIGNAL: sends a signal to the command and to all that it started.
hit() {
    read -r command <"$own/command" || return 0
    kill -s "$1" -- "-$command" 2>/dev/null || kill -s "$1" "$command" 2>/dev/null
}

stop_command() {
    hit TERM
    (sleep 5 && hit KILL) >/dev/null 2>&1 &
    killer="$killer $!"
}

# Starts the time that the command still has after a signal.
be_patient() {
    if [ -n "$give_back" ]; then
        [ -n "$killer" ] || stop_command
    elif [ -z "$patience" ]; then
        (sleep "$grace" && kill -s USR1 "$me") >/dev/null 2>&1 &
        patience=$!
    fi
}

# Renews the lease, and learns whether the job was cancelled.
heartbeat() {
    proof | curl -q -g -s -K "$own/curl" -K - -X POST -w '\n%{http_code}\n' --max-time "$((every + 5))" \
        "$url/jobs/$job/heartbeat" >"$own/beat" 2>/dev/null &
    busy=$!
    [ ! -s "$own/status" ] || interrupt
    await "$busy"
    busy=''
    answer=$(cat "$own/beat")
    # The error of an earlier attempt may hold any text, so only what precedes it counts.
    case ${answer%%'"error":'*} in *'"cancel_requested":true'*) told=cancelled ;; esac
    case ${answer##*[!0-9]} in 403 | 404 | 409 | 410) told=lost ;; esac
    try_next "${answer##*[!0-9]}"
    [ -z "$told" ] || stop_command
}

# -- the outcome ---------------------------------------------------------------------------------------------------

# report STATUS: reports the outcome of a command that ended with this status.
report() {
    if [ "$1" -eq 0 ]; then
        conclude
    elif [ "$told" = lost ]; then
        say "job $job: its lease is lost; the command was stopped"
        id=''
    elif [ -n "$told$give_back" ]; then
        release 0
    elif [ "$1" -eq 75 ]; then
        release "$rest_for"
    else
        { echo "exit $1" && tail -c 4000 "$own/err"; } >"$own/why"
        fail "exit $1: $(tail -n 1 "$own/err" | LC_ALL=C tr -d '\000-\010\013-\037\177')"
    fi
}

# tell PATH ARGUMENT...: sends a request until the server has answered, up to ten times.
tell() {
    tries=0
    while :; do
        request "$@"
        case $code in
            2??) delay=1 && return 0 ;;
            000 | 408 | 429 | 5??) tries=$((tries + 1)) ;;
            *) return 1 ;;
        esac
        [ "$tries" -lt 10 ] || return 1
        [ -z "$stopping" ] || [ "$tries" -lt 3 ] || return 1
        rest "no answer from $urls ($code)"
    done
}

# Concludes the job. If the worker goes on, the same request waits for the next job, and sets id to it.
conclude() {
    # As an upload: --data-binary would make an empty result of a file that is missing (its processes were killed).
    set -- -T "$own/out" -H "Content-Type: $type"
    code=000
    if is_wanted && has_room; then
        request "/jobs/$job/conclude?next=1&$options" "$@"
        [ "$code" != 204 ] || [ -z "$once" ] || stopping=1
    fi
    # The server may have received an interrupted request; a second conclude changes nothing.
    case $code in 000 | 408 | 429 | 5??) tell "/jobs/$job/conclude?raw=1" "$@" ;; esac
    case $code in
        2??) note concluded ;;
        000 | 401 | 403 | 404 | 408 | 409 | 410 | 429 | 5??) not_told concluded ;;
        *)
            # Doing the work again would not change its result.
            { echo "the result was refused:" && cat "$own/body"; } >"$own/why"
            fail "the result was refused ($code)" '&retry=false'
            ;;
    esac
}

release() {
    job=$id
    if tell "/jobs/$job/release?delay=$1"; then note released; else not_told released; fi
    id=''
}

# fail WHY [OPTIONS]: fails the job with the text in the file `why`.
fail() {
    say "job $job: $1"
    if tell "/jobs/$job/fail?raw=1${2:-}" -T "$own/why" -H 'Content-Type: text/plain'; then
        note failed
    else
        not_told failed
    fi
    id=''
}

note() {
    [ -z "$verbose" ] || say "job $job: $1"
}

not_told() {
    say "job $job: could not be $1 ($code); its lease will time out"
}

main "$@"
exit
