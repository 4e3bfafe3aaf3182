// relay - copies bytes both ways between each client and a server, and looks at none of them (Linux).
//
//   relay IP:PORT IP:PORT        where to listen, where to connect to
//
// What any proxy of this machine has to do at least: wait, read and write once for each direction, in one thread. A connection
// to the server for each of a client.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct end {
    int fd;
    struct end *peer;
    char *held; // what could not be written to it yet
    size_t len, off;
    int ended; // it has said all
} end;

#define LARGEST (256 * 1024)
static int ep;
static char bytes[LARGEST];
static struct sockaddr_in server;
static end *over[2]; // what ended with this event: freed after it

static void die(const char *what) {
    perror(what);
    exit(1);
}
static struct sockaddr_in address(const char *text) {
    char ip[16];
    int port;
    struct sockaddr_in at = {.sin_family = AF_INET};
    if (sscanf(text, "%15[0-9.]:%d", ip, &port) != 2 || !inet_aton(ip, &at.sin_addr)) {
        fprintf(stderr, "relay: %s is not IP:PORT\n", text);
        exit(2);
    }
    at.sin_port = htons(port);
    return at;
}
static void finish(end *one) {
    close(one->fd);
    close(one->peer->fd);
    over[0] = one;
    over[1] = one->peer;
}
// What `from` says, until there is no more of it or its peer does not take it. A short read is the last one unless an end
// is known to follow.
static void pump(end *from, int until_end) {
    end *to = from->peer;
    while (!to->held && !from->ended) {
        ssize_t got = recv(from->fd, bytes, sizeof bytes, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got < 0) return finish(from);
        if (got == 0) {
            from->ended = 1;
            if (to->ended) return finish(from);
            shutdown(to->fd, SHUT_WR);
            return;
        }
        ssize_t sent = send(to->fd, bytes, got, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return finish(from);
        if (sent < got) {
            to->off = 0;
            to->len = got - (sent < 0 ? 0 : sent);
            to->held = malloc(to->len);
            if (!to->held) die("malloc");
            memcpy(to->held, bytes + got - to->len, to->len);
            return;
        }
        if (got < LARGEST && !until_end) return;
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
    to->held = NULL;
    // Its peer may have said more meanwhile, of which nothing will be told again.
    pump(to->peer, 1);
}
static end *watch(int fd) {
    int one = 1;
    end *made = calloc(1, sizeof *made);
    if (!made) die("calloc");
    made->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return made;
}
static void take(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        int up = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (up < 0) die("socket");
        if (connect(up, (void *)&server, sizeof server) && errno != EINPROGRESS) die("connect");
        end *ends[2] = {watch(fd), watch(up)};
        ends[0]->peer = ends[1];
        ends[1]->peer = ends[0];
        for (int i = 0; i < 2; i++) {
            struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = ends[i]};
            if (epoll_ctl(ep, EPOLL_CTL_ADD, ends[i]->fd, &event)) die("epoll_ctl");
        }
    }
}
int main(int count, char **words) {
    if (count != 3) {
        fprintf(stderr, "usage: relay IP:PORT IP:PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in own = address(words[1]);
    server = address(words[2]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&own, sizeof own) || listen(listener, 4096)) die("listen");
    ep = epoll_create1(0);
    struct epoll_event events[256], first = {.events = EPOLLIN, .data.ptr = NULL};
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &first)) die("epoll");
    for (;;) {
        int ready = epoll_wait(ep, events, 256, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            end *one = events[i].data.ptr;
            unsigned what = events[i].events;
            if (!what) continue;
            if (!one) {
                take(listener);
                continue;
            }
            if (one->held && what & EPOLLOUT) flush(one);
            if (!over[0] && what & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                pump(one, !!(what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)));
            if (!over[0]) continue;
            // Events of the other end that are still to come are for nobody.
            for (int k = i + 1; k < ready; k++)
                if (events[k].data.ptr == one->peer) events[k].events = 0;
            for (int k = 0; k < 2; k++) {
                free(over[k]->held);
                free(over[k]);
                over[k] = NULL;
            }
        }
    }
}
