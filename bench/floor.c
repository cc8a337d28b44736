/* The smallest possible supervisor, and the child that both sides of bench_restart.py run.
 *
 *   floor parent FIFO    starts `floor child FIFO` again whenever it dies: waitid, vfork, exec, nothing else
 *   floor child FIFO     writes CLOCK_MONOTONIC in nanoseconds and its pid as its first act, then sleeps
 *   floor sleepers N     starts N children that sleep, says "up", waits for its end (for bench_idle.py)
 *   floor lines BYTES    writes so many bytes as lines of 100 bytes, 64 KiB at a time (for bench_limits.py)
 *   floor capture FILE N copies stdin to FILE in pieces of 64 KiB and turns it over at N bytes
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int child(const char *fifo) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    char line[64];
    int length = snprintf(line, sizeof line, "%lld %d\n", now.tv_sec * 1000000000LL + now.tv_nsec, (int)getpid());
    int fd = open(fifo, O_WRONLY);
    if (fd < 0 || write(fd, line, length) != length) return 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* after the act that is measured; no bench leaves it behind */
    if (getppid() == 1) return 1;
    for (;;) pause();
}

static pid_t start(char *const argv[]) {
    pid_t pid = vfork();
    if (pid == 0) {
        execv("/proc/self/exe", argv);
        _exit(127);
    }
    return pid;
}

static int parent(char *fifo) {
    char *argv[] = {"floor", "child", fifo, NULL};
    siginfo_t info;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no bench leaves it behind */
    for (;;) {
        if (start(argv) < 0 || waitid(P_ALL, 0, &info, WEXITED) != 0) return 1;
    }
}

static int sleepers(int count) {
    char *argv[] = {"floor", "sleep", NULL};
    for (int i = 0; i < count; i++)
        if (start(argv) < 0) return 1;
    puts("up");
    fflush(stdout);
    for (;;) pause();
}

static int lines(long long bytes) {
    static char block[65536 / 100 * 100];
    for (size_t i = 0; i < sizeof block; i++) block[i] = i % 100 == 99 ? '\n' : 'x';
    while (bytes > 0) {
        ssize_t done = write(1, block, bytes < (long long)sizeof block ? (size_t)bytes : sizeof block);
        if (done <= 0) return 1;
        bytes -= done;
    }
    return 0;
}

static int capture(const char *path, long long turn_over) {
    static char block[65536];
    char old[4096];
    snprintf(old, sizeof old, "%s.1", path);
    int fd = -1;
    long long size = 0;
    for (ssize_t got; (got = read(0, block, sizeof block)) > 0; size += got) {
        if (fd >= 0 && size >= turn_over) {
            close(fd);
            rename(path, old);
            fd = -1;
        }
        if (fd < 0) {
            fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
            size = 0;
        }
        if (fd < 0 || write(fd, block, got) != got) return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "child")) return child(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "parent")) return parent(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "sleepers")) return sleepers(atoi(argv[2]));
    if (argc == 3 && !strcmp(argv[1], "lines")) return lines(atoll(argv[2]));
    if (argc == 4 && !strcmp(argv[1], "capture")) return capture(argv[2], atoll(argv[3]));
    if (argc == 2 && !strcmp(argv[1], "sleep")) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == 1) return 0; /* its parent was gone before */
        for (;;) pause();
    }
    return 2;
}
