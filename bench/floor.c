/* The smallest possible supervisor, and the child that both sides of bench_restart.py run.
 *
 *   floor parent FIFO    starts `floor child FIFO` again whenever it dies: waitid, vfork, exec, nothing else
 *   floor child FIFO     writes CLOCK_MONOTONIC in nanoseconds and its pid as its first act, then sleeps
 *   floor sleepers N     starts N children that sleep, says "up", waits for its end (for bench_idle.py)
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

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "child")) return child(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "parent")) return parent(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "sleepers")) return sleepers(atoi(argv[2]));
    if (argc == 2 && !strcmp(argv[1], "sleep")) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    return 2;
}
