/* loadgen: closed-loop job lifecycles over many connections, and its own ceiling.
 *
 *   loadgen http      PORT CONNECTIONS SECONDS SCRIPT    an HTTP queue
 *   loadgen beanstalk PORT CONNECTIONS SECONDS BYTES     put, reserve, delete
 *   loadgen redis     PORT CONNECTIONS SECONDS BYTES     LPUSH, LMOVE, LREM
 *   loadgen static    SECONDS                            answers every read with the same bytes
 *
 * All traffic is on 127.0.0.1. Each connection sends a request, waits for its answer, sends the next: one
 * lifecycle after another. After SECONDS every connection ends the lifecycle it is in, so that no job is left
 * behind; what ends later is not counted, but its time is, if it was sent before.
 *
 * SCRIPT is a file ("-": standard input) of requests separated by lines "%%". A request is a line
 * "METHOD PATH Header: v|Header: v" and a body below. "{id}" and "{lease}" in path and body stand for what the
 * answer before had as "id" and "lease", "{receipt}" for its "ReceiptHandle". A request that begins with "*" is sent for each job of the answer
 * before, all at once (pipelined), and waits for as many answers; one that begins with "+" is sent once, its
 * body a line for each of those jobs. One that begins with "=4 " is sent four times at once; the jobs of all its
 * answers count as those of one.
 *
 * An answer that is not 2xx, or has nothing where a job was asked for (204, TIMED_OUT, nil), is an error.
 * Prints one line of JSON; times are microseconds from sending a request to having its answer. `static`
 * prints the port it listens on. Exit status: 0, also with errors counted; 1 when a connection broke.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_STEPS 32
#define GRACE 10.0 /* seconds to end the lifecycles under way */

typedef struct {
    char *data;
    size_t used, room;
} Text;

typedef struct {
    char id[32], lease[96], receipt[512];
} Job;

typedef struct {
    char *method, *path, *headers, *body;
    int each;   /* sent for each job of the answer before */
    int joined; /* sent once, with a line for each of them */
    int times;  /* sent so many times at once; 0: once */
    int marked;  /* path or body hold {id}, {lease} or {receipt} */
    int receipt; /* body holds {receipt} */
} Step;

typedef struct {
    int fd, step, waits_for_room;
    long expected; /* answers still to come */
    double sent_at;
    Text in, out;
    size_t sent;
    Job *jobs; /* of the last answer that had any */
    long job_count, job_room;
} Connection;

typedef struct {
    void (*request)(Connection *, const Step *, const Job *);
    /* Bytes of the first whole answer in `in`, 0 if it is not whole yet. */
    size_t (*answer)(Connection *, char *, size_t);
} Protocol;

static Step steps[MAX_STEPS];
static int step_count = 3, port, payload_bytes;
static char *payload;
static float *times; /* microseconds */
static size_t time_count, time_room;
static long requests, lifecycles, errors;
static char first_error[400];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* -- text ------------------------------------------------------------------------------------------ */

static void reserve(Text *text, size_t more) {
    if (text->used + more + 1 <= text->room) return;
    text->room = 2 * (text->used + more) + 4096;
    text->data = realloc(text->data, text->room);
    if (!text->data) die("realloc");
}

static void add(Text *text, const char *from, size_t count) {
    reserve(text, count);
    memcpy(text->data + text->used, from, count);
    text->used += count;
    text->data[text->used] = 0;
}

static void addf(Text *text, const char *format, ...) {
    char line[4096];
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    add(text, line, (size_t)count < sizeof line ? (size_t)count : sizeof line - 1);
}

/* Adds `from` with the marks replaced. */
static void add_filled(Text *text, const char *from, const Job *job) {
    const char *mark;
    while ((mark = strchr(from, '{'))) {
        add(text, from, (size_t)(mark - from));
        if (!strncmp(mark, "{id}", 4)) {
            add(text, job->id, strlen(job->id));
            from = mark + 4;
        } else if (!strncmp(mark, "{lease}", 7)) {
            add(text, job->lease, strlen(job->lease));
            from = mark + 7;
        } else if (!strncmp(mark, "{receipt}", 9)) {
            add(text, job->receipt, strlen(job->receipt));
            from = mark + 9;
        } else {
            add(text, "{", 1);
            from = mark + 1;
        }
    }
    add(text, from, strlen(from));
}

/* -- HTTP ------------------------------------------------------------------------------------------ */

static void http_request(Connection *c, const Step *step, const Job *job) {
    static Text body;
    size_t length = strlen(step->body);
    const char *content = step->body;
    if (step->marked) {
        body.used = 0;
        if (step->joined)
            for (long i = 0; i < c->job_count; i++) {
                add_filled(&body, step->body, &c->jobs[i]);
                add(&body, "\n", 1);
            }
        else
            add_filled(&body, step->body, job);
        content = body.data;
        length = body.used;
    }
    addf(&c->out, "%s ", step->method);
    if (step->marked)
        add_filled(&c->out, step->path, job);
    else
        add(&c->out, step->path, strlen(step->path));
    addf(&c->out, " HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%sContent-Length: %zu\r\n\r\n", port, step->headers, length);
    add(&c->out, content, length);
}

static void fail(Connection *c, const char *answer) {
    errors++;
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "step %d: %.350s", c->step, answer);
}

static void copy_until(char *to, size_t room, const char *from, const char *stop) {
    size_t count = strcspn(from, stop);
    if (count >= room) count = room - 1;
    memcpy(to, from, count);
    to[count] = 0;
}

/* Keeps the receipt handle in the body, of an answer with one message. False: it has none. */
static int remember_receipt(Connection *c, char *body, char *end) {
    static const char *before = "\"ReceiptHandle\":";
    char *at = memmem(body, (size_t)(end - body), before, strlen(before));
    if (!at) return 0;
    at += strlen(before);
    at += strspn(at, " \"");
    copy_until(c->jobs[0].receipt, sizeof c->jobs[0].receipt, at, "\"");
    c->job_count = 1;
    return 1;
}

/* Keeps the id and lease of every job in the body. An answer shows `id` before `lease`. */
static void remember_jobs(Connection *c, char *body, char *end) {
    char *at = memmem(body, (size_t)(end - body), "\"id\":", 5);
    if (!steps[c->step].times) c->job_count = 0;
    while (at) {
        char *next = memmem(at + 5, (size_t)(end - at - 5), "\"id\":", 5);
        char *lease = memmem(at, (size_t)((next ? next : end) - at), "\"lease\":\"", 9);
        if (c->job_count == c->job_room) {
            c->job_room = 2 * c->job_room + 1;
            c->jobs = realloc(c->jobs, (size_t)c->job_room * sizeof *c->jobs);
            if (!c->jobs) die("realloc");
        }
        Job *job = &c->jobs[c->job_count++];
        copy_until(job->id, sizeof job->id, at + 5, ",}\r\n");
        job->lease[0] = 0;
        if (lease) copy_until(job->lease, sizeof job->lease, lease + 9, "\"");
        at = next;
    }
}

static size_t http_answer(Connection *c, char *at, size_t count) {
    char *head_end = memmem(at, count, "\r\n\r\n", 4);
    if (!head_end) return 0;
    size_t length = 0;
    for (char *line = memchr(at, '\n', count); line && line < head_end;
         line = memchr(line + 1, '\n', (size_t)(head_end + 2 - line))) {
        if (!strncasecmp(line + 1, "content-length:", 15)) length = (size_t)atol(line + 16);
        if (!strncasecmp(line + 1, "transfer-encoding:", 18)) die("an answer in chunks, which this cannot read");
    }
    char *body = head_end + 4;
    if (count < (size_t)(body - at) + length) return 0;
    int status = atoi(at + 9);
    if (status < 200 || status > 299 || status == 204)
        fail(c, at);
    else if (steps[(c->step + 1) % step_count].receipt) {
        if (!remember_receipt(c, body, body + length)) fail(c, at);
    } else if (steps[(c->step + 1) % step_count].marked)
        remember_jobs(c, body, body + length);
    return (size_t)(body - at) + length;
}

static void read_script(const char *name) {
    FILE *file = strcmp(name, "-") ? fopen(name, "r") : stdin;
    if (!file) die(name);
    Text text = {0};
    char piece[65536];
    size_t count;
    while ((count = fread(piece, 1, sizeof piece, file))) add(&text, piece, count);
    fclose(file);
    step_count = 0;
    for (char *at = text.data, *next; at && step_count < MAX_STEPS; at = next) {
        next = strstr(at, "\n%%\n");
        if (next) {
            *next = 0;
            next += 4;
        }
        Step *step = &steps[step_count++];
        char *body = strchr(at, '\n');
        step->body = body ? body + 1 : at + strlen(at);
        if (body) *body = 0;
        for (size_t n = strlen(step->body); n && step->body[n - 1] == '\n'; n--) step->body[n - 1] = 0;
        step->each = *at == '*';
        step->joined = *at == '+';
        step->times = *at == '=' ? atoi(at + 1) : 0;
        step->method = strtok(at + (step->each || step->joined), " ");
        if (step->times) step->method = strtok(NULL, " ");
        step->path = strtok(NULL, " ");
        if (!step->path) {
            fprintf(stderr, "%s: a request without a path\n", name);
            exit(2);
        }
        Text headers = {0};
        add(&headers, "", 0);
        for (char *header = strtok(NULL, "|"); header; header = strtok(NULL, "|")) addf(&headers, "%s\r\n", header);
        step->headers = headers.data;
        step->receipt = strstr(step->body, "{receipt}") != NULL;
        step->marked =
            step->receipt || strstr(step->path, "{id}") || strstr(step->body, "{id}") || strstr(step->body, "{lease}");
    }
}

/* -- beanstalkd and Redis -------------------------------------------------------------------------- */

static void beanstalk_request(Connection *c, const Step *step, const Job *job) {
    (void)step;
    if (c->step == 0)
        addf(&c->out, "put 0 0 300 %d\r\n%s\r\n", payload_bytes, payload);
    else if (c->step == 1)
        addf(&c->out, "reserve-with-timeout 0\r\n");
    else
        addf(&c->out, "delete %s\r\n", job->id);
}

static size_t beanstalk_answer(Connection *c, char *at, size_t count) {
    static const char *expected[] = {"INSERTED ", "RESERVED ", "DELETED"};
    char *end = memmem(at, count, "\r\n", 2);
    if (!end) return 0;
    size_t whole = (size_t)(end - at) + 2;
    if (strncmp(at, expected[c->step], strlen(expected[c->step]))) {
        fail(c, at);
    } else if (c->step == 1) {
        copy_until(c->jobs[0].id, sizeof c->jobs[0].id, at + 9, " \r");
        whole += (size_t)atol(at + 9 + strlen(c->jobs[0].id)) + 2;
        if (count < whole) return 0;
    }
    return whole;
}

static void redis_request(Connection *c, const Step *step, const Job *job) {
    (void)step, (void)job;
    if (c->step == 0)
        addf(&c->out, "*3\r\n$5\r\nLPUSH\r\n$1\r\nq\r\n$%d\r\n%s\r\n", payload_bytes, payload);
    else if (c->step == 1)
        addf(&c->out, "*5\r\n$5\r\nLMOVE\r\n$1\r\nq\r\n$1\r\np\r\n$5\r\nRIGHT\r\n$4\r\nLEFT\r\n");
    else
        addf(&c->out, "*4\r\n$4\r\nLREM\r\n$1\r\np\r\n$1\r\n1\r\n$%d\r\n%s\r\n", payload_bytes, payload);
}

static size_t redis_answer(Connection *c, char *at, size_t count) {
    char *end = memmem(at, count, "\r\n", 2);
    if (!end) return 0;
    size_t whole = (size_t)(end - at) + 2;
    if (at[0] != (c->step == 1 ? '$' : ':') || atol(at + 1) < 1) {
        fail(c, at);
    } else if (c->step == 1) {
        whole += (size_t)atol(at + 1) + 2;
        if (count < whole) return 0;
    }
    return whole;
}

static const Protocol http = {http_request, http_answer};
static const Protocol beanstalk = {beanstalk_request, beanstalk_answer};
static const Protocol redis = {redis_request, redis_answer};

/* -- the loop -------------------------------------------------------------------------------------- */

static int open_epoll(void) {
    int poll = epoll_create1(0);
    if (poll < 0) die("epoll_create1");
    return poll;
}

static void send_rest(int poll, Connection *c) {
    int full = 0;
    while (c->sent < c->out.used && !full) {
        ssize_t count = write(c->fd, c->out.data + c->sent, c->out.used - c->sent);
        if (count >= 0)
            c->sent += (size_t)count;
        else if (errno == EAGAIN)
            full = 1;
        else
            die("write");
    }
    if (full != c->waits_for_room) {
        struct epoll_event event = {.events = EPOLLIN | (full ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(poll, EPOLL_CTL_MOD, c->fd, &event);
        c->waits_for_room = full;
    }
}

static void send_step(const Protocol *protocol, int poll, Connection *c) {
    const Step *step = &steps[c->step];
    c->out.used = c->sent = 0;
    c->expected = step->each ? c->job_count : step->times ? step->times : 1;
    for (long i = 0; i < c->expected; i++) protocol->request(c, step, &c->jobs[step->times ? 0 : i]);
    if (step->times) c->job_count = 0;
    c->sent_at = now();
    send_rest(poll, c);
}

static void keep_time(double seconds) {
    if (time_count == time_room) {
        time_room *= 2;
        times = realloc(times, time_room * sizeof *times);
        if (!times) die("realloc");
    }
    times[time_count++] = (float)(seconds * 1e6);
}

/* Takes the whole answers out of what has come, and sends what follows. True: the connection is done. */
static int take_answers(const Protocol *protocol, int poll, Connection *c, double end) {
    size_t at = 0, whole = 0;
    while (c->expected && (whole = protocol->answer(c, c->in.data + at, c->in.used - at))) {
        double time = now();
        at += whole;
        c->expected--;
        if (c->sent_at < end) keep_time(time - c->sent_at);
        if (time < end) {
            requests++;
            if (c->step == step_count - 1) lifecycles += steps[c->step].joined ? c->job_count : 1;
        }
    }
    memmove(c->in.data, c->in.data + at, c->in.used - at);
    c->in.used -= at;
    c->in.data[c->in.used] = 0;
    if (c->expected) return 0;
    do {
        c->step = (c->step + 1) % step_count;
        if (c->step == 0 && now() >= end) return 1;
        send_step(protocol, poll, c);
    } while (!c->expected); /* no job to send it for: an error counted above */
    return 0;
}

static void open_connection(Connection *c, int poll) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (void *)&address, sizeof address)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->jobs = calloc(1, sizeof *c->jobs);
    c->job_room = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event);
}

static void drive(const Protocol *protocol, int count, double seconds) {
    Connection *connections = calloc((size_t)count, sizeof *connections);
    int poll = open_epoll(), left = count;
    time_room = 1 << 22;
    times = malloc(time_room * sizeof *times);
    for (int i = 0; i < count; i++) open_connection(&connections[i], poll);
    double start = now(), end = start + seconds;
    for (int i = 0; i < count; i++) send_step(protocol, poll, &connections[i]);
    while (left && now() < end + GRACE) {
        struct epoll_event events[256];
        int ready = epoll_wait(poll, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            Connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_rest(poll, c);
            if (!(events[i].events & ~(unsigned)EPOLLOUT)) continue;
            reserve(&c->in, 262144);
            ssize_t got = read(c->fd, c->in.data + c->in.used, c->in.room - c->in.used - 1);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) {
                fprintf(stderr, "the server closed the connection; last: %.200s\n", c->in.used ? c->in.data : "");
                exit(1);
            }
            c->in.used += (size_t)got;
            c->in.data[c->in.used] = 0;
            if (take_answers(protocol, poll, c, end)) {
                close(c->fd);
                left--;
            }
        }
    }
    if (left) {
        errors += left;
        if (!first_error[0]) snprintf(first_error, sizeof first_error, "%d lifecycles did not end", left);
    }
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double share(double of) {
    return time_count ? (double)times[(size_t)((double)(time_count - 1) * of)] : 0.0;
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void report(int connections, double seconds, double cpu) {
    qsort(times, time_count, sizeof *times, by_size);
    printf("{\"connections\":%d,\"seconds\":%.3f,\"lifecycles\":%ld,\"requests\":%ld,\"errors\":%ld,", connections,
           seconds, lifecycles, requests, errors);
    printf("\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f,\"cpu\":%.3f,\"first_error\":\"", share(.5),
           share(.99), share(.999), share(1), cpu / seconds);
    for (const char *at = first_error; *at; at++) {
        if (*at == '"' || *at == '\\')
            printf("\\%c", *at);
        else if ((unsigned char)*at < 32 || (unsigned char)*at > 126)
            printf("\\u%04x", (unsigned char)*at);
        else
            putchar(*at);
    }
    printf("\"}\n");
}

/* -- the ceiling ----------------------------------------------------------------------------------- */

static int answer_always(double seconds) {
    char body[400], answer[1024], got[65536];
    int length = snprintf(body, sizeof body,
                          "{\"id\":28339200000001,\"lease\":\"abcdefghijklmnop\",\"status\":\"in_progress\",\"queue\":"
                          "\"default\",\"type\":\"bench\",\"priority\":0,\"attempts\":1,\"leases\":1,\"created_at\":"
                          "\"2026-11-24T03:14:15.123Z\",\"payload\":\"%0100d\"}\n",
                          0);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 03:14:15 GMT\r\nContent-Type: application/json\r\n"
                        "X-Request-Id: 0123456789abcdef\r\nContent-Length: %d\r\n\r\n%s",
                        length, body);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t address_size = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0), poll = open_epoll();
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listening, (void *)&address, sizeof address) || listen(listening, 1024)) die("listen");
    getsockname(listening, (void *)&address, &address_size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listening}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listening, &event);
    for (double end = now() + seconds; now() < end;) {
        int ready = epoll_wait(poll, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listening) {
                int yes = 1;
                event.data.fd = accept(listening, NULL, NULL);
                setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event);
            } else if (read(fd, got, sizeof got) <= 0 || write(fd, answer, (size_t)size) < 0) {
                close(fd);
            }
        }
    }
    return 0;
}

int main(int count, char **arguments) {
    if (count == 3 && !strcmp(arguments[1], "static")) return answer_always(atof(arguments[2]));
    if (count != 6) {
        fprintf(stderr, "usage: see the head of loadgen.c\n");
        return 2;
    }
    const Protocol *protocol = NULL;
    port = atoi(arguments[2]);
    int connections = atoi(arguments[3]);
    double seconds = atof(arguments[4]);
    if (!strcmp(arguments[1], "http")) {
        protocol = &http;
        read_script(arguments[5]);
    } else {
        protocol = !strcmp(arguments[1], "redis") ? &redis : &beanstalk;
        payload_bytes = atoi(arguments[5]);
        if (payload_bytes < 1 || payload_bytes > 2000) {
            fprintf(stderr, "BYTES: from 1 to 2000\n");
            return 2;
        }
        payload = calloc((size_t)payload_bytes + 1, 1);
        memset(payload, 'x', (size_t)payload_bytes);
    }
    if (connections < 1 || seconds <= 0) {
        fprintf(stderr, "CONNECTIONS and SECONDS: above 0\n");
        return 2;
    }
    double cpu = cpu_seconds();
    drive(protocol, connections, seconds);
    report(connections, seconds, cpu_seconds() - cpu);
    return 0;
}
