// What a filter does to a process, seen from inside it. Built statically by the tests of seccomp, for x86_64 and any
// other architecture of Linux; `int80` is for x86_64 only.
//
//   probe call NUMBER [ARGUMENT...]    makes the call, prints its result or its errno
//   probe int80 NUMBER [ARGUMENT...]   the same by the 32-bit gate of x86
//   probe trap NUMBER                  the same with a handler for SIGSYS that prints what it is told
//   probe thread NUMBER                makes the call in a second thread, then prints that the first one lives
//   probe threads                      runs many threads, prints how many came back
//   probe sweep FIRST LAST             makes each call with senseless arguments, prints the errno of each
//   probe trace NUMBER                 traces a child that makes the call, prints what the filter told the tracer
//   probe answer RESULT                on the host: answers each call that the listener on standard input tells of;
//                                      `continue` lets it be executed
#define _GNU_SOURCE
#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void report(long result) {
    if (result < 0)
        printf("errno %d\n", errno);
    else
        printf("result %ld\n", result);
}

static void handler(int number, siginfo_t *info, void *context) {
    (void)context;
    // SYS_SECCOMP is 1.
    printf("signal %d code %d call %d data %d\n", number, info->si_code, info->si_syscall, info->si_errno);
    fflush(stdout);
    _exit(0);
}

static void *call_in_thread(void *number) {
    syscall((long)number, 0, 0, 0, 0, 0, 0);
    return NULL;
}

static void *work(void *counter) {
    for (int i = 0; i < 1000; i++)
        __atomic_add_fetch((int *)counter, 1, __ATOMIC_SEQ_CST);
    free(malloc(1 << 20));
    return NULL;
}

static int threads(void) {
    pthread_t all[32];
    int counter = 0;
    for (int i = 0; i < 32; i++)
        if (pthread_create(&all[i], NULL, work, &counter) != 0)
            return 1;
    for (int i = 0; i < 32; i++)
        pthread_join(all[i], NULL);
    printf("counted %d\n", counter);
    return 0;
}

#ifdef __x86_64__
// Ends, waits for ever, or is meant for the kernel's own code at a place of its own.
static int is_unsafe(long number) {
    static const long unsafe[] = {SYS_rt_sigreturn, SYS_pause,   SYS_fork,         SYS_vfork, SYS_exit,
                                  SYS_exit_group,   SYS_execve,  SYS_rt_sigsuspend, 335,       336};
    for (size_t i = 0; i < sizeof unsafe / sizeof *unsafe; i++)
        if (unsafe[i] == number)
            return 1;
    return 0;
}

static void sweep(long first, long last) {
    for (long number = first; number <= last; number++) {
        if (is_unsafe(number))
            continue;
        errno = 0;
        syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
        dprintf(1, "%ld %d\n", number, errno);
    }
}

static long int80(const long *a) {
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(a[0]), "b"(a[1]), "c"(a[2]), "d"(a[3]), "S"(a[4]), "D"(a[5])
                     : "memory", "r8", "r9", "r10", "r11");
    // The gate gives 32 bits.
    result = (int)result;
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}
#endif

static int trace(long number) {
    int status;
    unsigned long message = 0;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        errno = 0;
        syscall(number, -100L, 0, 0, 0, 0, 0);
        _exit(errno);
    }
    waitpid(child, &status, 0);
    ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL));
    ptrace(PTRACE_CONT, child, NULL, NULL);
    waitpid(child, &status, 0);
    if (status >> 8 != (SIGTRAP | PTRACE_EVENT_SECCOMP << 8))
        return 3;
    ptrace(PTRACE_GETEVENTMSG, child, NULL, &message);
    ptrace(PTRACE_CONT, child, NULL, NULL);
    waitpid(child, &status, 0);
    printf("told %lu, then errno %d\n", message, WEXITSTATUS(status));
    return 0;
}

static int answer(long result, int executed) {
    struct seccomp_notif notification;
    struct seccomp_notif_resp response;
    for (;;) {
        memset(&notification, 0, sizeof notification);
        if (ioctl(0, SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0) {
            if (errno == EINTR)
                continue;
            return 0;
        }
        memset(&response, 0, sizeof response);
        response.id = notification.id;
        if (executed)
            response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        else if (result < 0)
            response.error = (int)result;
        else
            response.val = result;
        dprintf(1, "asked about %d\n", notification.data.nr);
        ioctl(0, SECCOMP_IOCTL_NOTIF_SEND, &response);
    }
}

int main(int count, char **words) {
    long a[7] = {0};
    if (count < 2)
        return 2;
    for (int i = 2; i < count && i < 9; i++)
        a[i - 2] = strtoll(words[i], NULL, 0);
    if (!strcmp(words[1], "call")) {
        report(syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]));
    } else if (!strcmp(words[1], "trap")) {
        struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
        sigaction(SIGSYS, &action, NULL);
        report(syscall(a[0], 0, 0, 0, 0, 0, 0));
    } else if (!strcmp(words[1], "thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, call_in_thread, (void *)a[0]);
        // A killed thread wakes nobody who joins it.
        usleep(200000);
        dprintf(1, "the first thread lives\n");
        _exit(0);
    } else if (!strcmp(words[1], "threads")) {
        return threads();
    } else if (!strcmp(words[1], "trace")) {
        return trace(a[0]);
    } else if (!strcmp(words[1], "answer")) {
        return answer(a[0], count > 2 && !strcmp(words[2], "continue"));
#ifdef __x86_64__
    } else if (!strcmp(words[1], "int80")) {
        report(int80(a));
    } else if (!strcmp(words[1], "sweep")) {
        sweep(a[0], a[1]);
#endif
    } else {
        return 2;
    }
    return 0;
}
