// relay - copies bytes both ways between each client and a server, and looks at none of them (Linux, OpenSSL).
//
//   relay FILE                   a configuration, a line each:
//       listen IP:PORT           or unix:PATH
//       connect IP:PORT          or unix:PATH
//       tls-listen PEM CA        TLS with clients: certificate with key, and who has to have signed that of a client
//       tls-connect PEM CA       TLS with the server, likewise
//       reuse                    a request of HTTP/1.1 that says `Connection: close` ends the client's connection alone:
//                                the server is told something else, and its connection serves the next client
//
// What any proxy of this machine has to do at least: wait, read and write once for each direction, in one thread, and
// seal or open what is encrypted. A connection to the server for each of a client, but for `reuse`.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct end {
    int fd;
    SSL *tls; // NULL: in the clear
    struct end *peer;
    char *held; // what could not be written to it yet, as it goes to the socket
    size_t len, off;
    int ended;   // it has said all
    int drained; // its socket had no more to read
    int client;  // it is one, and no server
    int last;    // reuse, of a client: its connection ends with the answer; 2: which is complete, if not written
    size_t due;  // reuse, of a server: bytes of the answer that are still to come; 0: not known
    int kept;    // reuse, of a server: serves nobody; its peer is the next such
} end;
typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in ip;
        struct sockaddr_un path;
    } at;
    socklen_t len;
    SSL_CTX *tls;
} side;

#define LARGEST (256 * 1024)
#define RECORD 16384
static int ep;
static struct epoll_event events[256];
static int ready, current; // how many there are, and which is acted upon
static char bytes[LARGEST];
static char sealed[2 * LARGEST]; // what TLS has to say with a call
static size_t sealed_len;
static side listening, server;
static BIO_METHOD *socket_method;
static end *over[2]; // what ended with this event: freed after it
static int reuse;
static end *idle; // connections to the server that serve nobody

static void die(const char *what) {
    perror(what);
    exit(1);
}
static void wrong(const char *what) {
    fprintf(stderr, "relay: %s\n", what);
    exit(2);
}
static void address(side *to, const char *text) {
    char ip[16];
    int port;
    if (!strncmp(text, "unix:", 5) && strlen(text + 5) < sizeof to->at.path.sun_path) {
        to->at.path.sun_family = AF_UNIX;
        strcpy(to->at.path.sun_path, text + 5);
        to->len = sizeof to->at.path;
    } else if (sscanf(text, "%15[0-9.]:%d", ip, &port) == 2 && inet_aton(ip, &to->at.ip.sin_addr)) {
        to->at.ip.sin_family = AF_INET;
        to->at.ip.sin_port = htons(port);
        to->len = sizeof to->at.ip;
    } else {
        wrong("an address is neither IP:PORT nor unix:PATH");
    }
}

// -- sockets, in the clear or with TLS
static int socket_write(BIO *bio, const char *from, int len) {
    (void)bio;
    if (sealed_len + len > sizeof sealed) return -1;
    memcpy(sealed + sealed_len, from, len);
    sealed_len += len;
    return len;
}
static int socket_read(BIO *bio, char *to, int len) {
    end *one = BIO_get_data(bio);
    ssize_t got = recv(one->fd, to, len, 0);
    BIO_clear_retry_flags(bio);
    if (got < 0 && errno == EAGAIN) BIO_set_retry_read(bio);
    one->drained = got < len;
    return got;
}
static long socket_control(BIO *bio, int what, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return what == BIO_CTRL_FLUSH;
}
static void use_tls(side *of, int is_server, const char *pem, const char *ca) {
    SSL_CTX *context = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") ||
        SSL_CTX_use_certificate_chain_file(context, pem) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, pem, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_locations(context, ca, NULL) != 1)
        wrong("a certificate, a key or a CA cannot be used");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"relay", 5);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, LARGEST / 2);
    of->tls = context;
}
static void finish(end *one) {
    close(one->fd);
    close(one->peer->fd);
    over[0] = one;
    over[1] = one->peer;
}
// To the socket; what it does not take is held. Whether it goes on.
static int emit(end *to, const char *from, size_t len) {
    ssize_t sent = to->held || !len ? 0 : send(to->fd, from, len, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return finish(to), 0;
    if (sent < 0) sent = 0;
    if ((size_t)sent == len) return 1;
    size_t rest = len - sent, before = to->len - to->off;
    char *held = malloc(before + rest);
    if (!held) die("malloc");
    if (to->held) memcpy(held, to->held + to->off, before);
    memcpy(held + before, from + sent, rest);
    free(to->held);
    to->held = held, to->off = 0, to->len = before + rest;
    return 1;
}
static int put(end *to, const char *from, size_t len) {
    if (!to->tls) return emit(to, from, len);
    sealed_len = 0;
    if (SSL_write(to->tls, from, len) != (int)len) return finish(to), 0;
    return emit(to, sealed, sealed_len);
}
// As much as there is and has room: how much, 0 at its end, or -1.
static ssize_t get(end *from) {
    if (!from->tls) {
        ssize_t got = recv(from->fd, bytes, sizeof bytes, 0);
        from->drained = got < (ssize_t)sizeof bytes;
        return got;
    }
    size_t total = 0;
    int got = 1;
    while (total <= LARGEST - RECORD && (got = SSL_read(from->tls, bytes + total, LARGEST - total)) > 0) {
        total += got;
        if (from->drained && !SSL_has_pending(from->tls)) break;
    }
    if (total) return total;
    int why = SSL_get_error(from->tls, got);
    errno = why == SSL_ERROR_WANT_READ ? EAGAIN : EIO;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}
// Whether the handshake is over; takes it on.
static int is_open(end *one) {
    if (!one->tls || SSL_is_init_finished(one->tls)) return 1;
    sealed_len = 0;
    int done = SSL_do_handshake(one->tls);
    if (done != 1 && SSL_get_error(one->tls, done) != SSL_ERROR_WANT_READ) return finish(one), 0;
    return emit(one, sealed, sealed_len) && done == 1;
}

// -- connections to the server that are used again
// Whether a request is the client's last; the server does not hear of it.
static int is_last(char *request, size_t len) {
    static const char close_after[] = "Connection: close";
    char *said = memmem(request, len, close_after, sizeof close_after - 1);
    if (said) memcpy(said, "Connection: alive", sizeof close_after - 1);
    return said != NULL;
}
// Bytes of an answer, whose head came whole.
static size_t length_of(char *answer, size_t len) {
    static const char name[] = "Content-Length: ";
    char *body = memmem(answer, len, "\r\n\r\n", 4), *length = memmem(answer, len, name, sizeof name - 1);
    if (!body || !length || length > body) wrong("an answer without a length cannot be followed by another client's");
    return body + 4 - answer + strtoul(length + sizeof name - 1, NULL, 10);
}
// Ends the client's connection, and keeps that with the server.
static void part(end *client) {
    end *from = client->peer;
    if (client->ended) return finish(client);
    over[0] = client;
    close(client->fd);
    from->kept = 1, from->peer = idle, idle = from;
}
// Whether the answer is complete, after so much more of it; then its client has no more to say.
static int has_answered(end *from, size_t got) {
    end *client = from->peer;
    if (!from->due) from->due = length_of(bytes, got);
    from->due -= got < from->due ? got : from->due;
    if (from->due) return 0;
    client->last = 2;
    if (!client->held) part(client);
    return 1;
}

// -- copying
// What `from` says, until there is no more of it or its peer does not take it. A short read is the last one unless an end
// is known to follow.
static void pump(end *from, int until_end) {
    end *to = from->peer;
    while (!to->held && !from->ended) {
        ssize_t got = get(from);
        if (got < 0 && errno == EAGAIN) return;
        if (got < 0) return finish(from);
        if (got == 0) {
            from->ended = 1;
            if (to->ended) return finish(from);
            if (to->tls) {
                sealed_len = 0;
                SSL_shutdown(to->tls);
                if (!emit(to, sealed, sealed_len)) return;
            }
            shutdown(to->fd, SHUT_WR);
            return;
        }
        if (reuse && from->client && is_last(bytes, got)) from->last = 1;
        if (!put(to, bytes, got)) return;
        if (to->last && has_answered(from, got)) return;
        if (from->drained && !(from->tls && SSL_has_pending(from->tls)) && !until_end) return;
    }
}
static void flush(end *to) {
    while (to->off < to->len) {
        ssize_t sent = send(to->fd, to->held + to->off, to->len - to->off, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return;
        if (sent < 0) return finish(to);
        to->off += sent;
    }
    free(to->held);
    to->held = NULL, to->off = to->len = 0;
    if (to->last == 2) return part(to);
    // Its peer may have said more meanwhile, of which nothing will be told again.
    if (is_open(to->peer) && !over[0] && is_open(to)) pump(to->peer, 1);
}
static void act(end *one, unsigned what) {
    unsigned ends = what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (one->kept && ends) wrong("the server has ended a connection that is to be used again");
    if (one->kept) return;
    if (one->held && what & EPOLLOUT) flush(one);
    if (over[0]) return;
    int was_open = !one->tls || SSL_is_init_finished(one->tls);
    if (!is_open(one)) {
        if (!over[0] && ends) finish(one);
        return;
    }
    if (!was_open && is_open(one->peer) && !over[0]) pump(one->peer, 1);
    if (over[0] || !is_open(one->peer) || over[0]) return;
    if (!was_open || ends || what & EPOLLIN) pump(one, !was_open || ends);
}
static end *watch(int fd, SSL_CTX *context, int is_server) {
    int one = 1;
    end *made = calloc(1, sizeof *made);
    if (!made) die("calloc");
    made->fd = fd;
    made->client = is_server;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (!context) return made;
    BIO *bio = BIO_new(socket_method);
    made->tls = SSL_new(context);
    if (!bio || !made->tls) die("SSL_new");
    BIO_set_data(bio, made);
    BIO_set_init(bio, 1);
    SSL_set_bio(made->tls, bio, bio);
    is_server ? SSL_set_accept_state(made->tls) : SSL_set_connect_state(made->tls);
    return made;
}
static end *add(end *one, end *peer) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = one};
    one->peer = peer;
    if (epoll_ctl(ep, EPOLL_CTL_ADD, one->fd, &event)) die("epoll_ctl");
    return one;
}
// Frees what is over. Events of it that are still to come are for nobody.
static void forget(void) {
    for (int i = 0; i < 2; i++) {
        if (!over[i]) continue;
        for (int k = current + 1; k < ready; k++)
            if (events[k].data.ptr == over[i]) events[k].events = 0;
        if (over[i]->tls) SSL_free(over[i]->tls);
        free(over[i]->held);
        free(over[i]);
        over[i] = NULL;
    }
}
static void take(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        end *again = idle;
        if (again) {
            idle = again->peer;
            again->kept = 0;
            again->peer = add(watch(fd, listening.tls, 1), again);
            // Most have said something by now, and need not be waited for.
            if (is_open(again->peer) && !over[0]) pump(again->peer, 0);
            forget();
            continue;
        }
        int up = socket(server.at.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (up < 0) die("socket");
        if (connect(up, &server.at.any, server.len) && errno != EINPROGRESS) die("connect");
        end *client = watch(fd, listening.tls, 1);
        client->peer = add(watch(up, server.tls, 0), client);
        add(client, client->peer);
    }
}
static void configure(const char *path) {
    FILE *file = fopen(path, "r");
    char line[1024], key[16], first[480], second[480];
    if (!file) die(path);
    while (fgets(line, sizeof line, file)) {
        int count = sscanf(line, "%15s %479s %479s", key, first, second);
        if (count == 2 && !strcmp(key, "listen")) address(&listening, first);
        else if (count == 2 && !strcmp(key, "connect")) address(&server, first);
        else if (count == 3 && !strcmp(key, "tls-listen")) use_tls(&listening, 1, first, second);
        else if (count == 3 && !strcmp(key, "tls-connect")) use_tls(&server, 0, first, second);
        else if (count == 1 && !strcmp(key, "reuse")) reuse = 1;
        else if (count > 0) wrong("a line is neither listen, connect, tls-listen, tls-connect nor reuse");
    }
    fclose(file);
    if (!listening.len || !server.len) wrong("it needs a line for listen and one for connect");
}
int main(int count, char **words) {
    if (count != 2) wrong("usage: relay FILE");
    signal(SIGPIPE, SIG_IGN);
    socket_method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socket");
    BIO_meth_set_read(socket_method, socket_read);
    BIO_meth_set_write(socket_method, socket_write);
    BIO_meth_set_ctrl(socket_method, socket_control);
    configure(words[1]);
    int listener = socket(listening.at.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, &listening.at.any, listening.len) || listen(listener, 4096)) die("listen");
    ep = epoll_create1(0);
    struct epoll_event first = {.events = EPOLLIN, .data.ptr = NULL};
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &first)) die("epoll");
    for (;;) {
        ready = epoll_wait(ep, events, 256, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (current = 0; current < ready; current++) {
            end *one = events[current].data.ptr;
            if (!events[current].events) continue;
            if (one) act(one, events[current].events);
            else take(listener);
            forget();
        }
    }
}
