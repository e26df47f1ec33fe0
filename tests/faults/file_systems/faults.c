// A library to preload: calls to the file system fail as rules say, below the program's own code.
//
// Rules are given to `faults_set`, separated by `;`, words by spaces:
//   ERRNO CALLS GLOB FIRST REACH  calls whose path matches GLOB fail, from the FIRST one on (from 1;
//                                 0: never, they are only counted). REACH: how many on the path
//                                 of the first, or `path`: all on it, or `all`.
//   fold FOLDER                   names below it are found whatever their case, as macOS has it.
//   clock SECONDS                 the time of day is so much ahead.
//   hurry FACTOR                  who sleeps, sleeps so many times shorter.
// Rules lie in memory that a process shares with those that it forks, and so do the counts.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RULES = 32, ON_PATH = -1, ON_ALL = -2 };

struct rule {
    int error, reach;
    long first, count, hits;
    char calls[64], glob[PATH_MAX], path[PATH_MAX];  // `path`: of the first call that failed
};

static struct shared {
    int rules;
    double ahead, hurry;
    char folded[PATH_MAX];
    struct rule rule[MOST_RULES];
} *shared;

static const struct { const char *name; int number; } ERRORS[] = {
    {"EACCES", EACCES}, {"EIO", EIO}, {"ESTALE", ESTALE}, {"ENOLCK", ENOLCK}, {"ENOSYS", ENOSYS},
    {"EOPNOTSUPP", EOPNOTSUPP}, {"EDQUOT", EDQUOT}, {"ENOSPC", ENOSPC}, {"EROFS", EROFS},
    {"EMFILE", EMFILE}, {"ETIMEDOUT", ETIMEDOUT}, {"EPERM", EPERM},
};

__attribute__((constructor)) static void begin(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) abort();
}

static int number_of(const char *name) {
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (!strcmp(ERRORS[i].name, name)) return ERRORS[i].number;
    return 0;
}

// Replace all rules; return how many are of calls, or -1 where one cannot be read.
int faults_set(const char *text) {
    memset(shared, 0, sizeof *shared);
    char *copy = strdup(text), *rest = copy;
    int rules = 0;
    for (char *part; (part = strsep(&rest, ";"));) {
        struct rule *rule = &shared->rule[rules];
        char error[32], reach[32];
        if (sscanf(part, " fold %4095s", shared->folded) == 1 ||
            sscanf(part, " clock %lf", &shared->ahead) == 1 ||
            sscanf(part, " hurry %lf", &shared->hurry) == 1 || !part[strspn(part, " ")])
            continue;
        if (sscanf(part, " %31s %63s %4095s %ld %31s", error, rule->calls, rule->glob,
                   &rule->first, reach) != 5 || !(rule->error = number_of(error)) ||
            ++rules == MOST_RULES) {
            rules = -1;
            break;
        }
        rule->reach = !strcmp(reach, "path") ? ON_PATH : !strcmp(reach, "all") ? ON_ALL : atoi(reach);
    }
    free(copy);
    shared->rules = rules < 0 ? 0 : rules;
    return rules;
}

int faults_number(void) { return shared->rules; }
long faults_count(int rule) { return shared->rule[rule].count; }
long faults_hits(int rule) { return shared->rule[rule].hits; }
const char *faults_path(int rule) { return shared->rule[rule].path; }

static int is_of(const struct rule *rule, const char *call) {
    size_t length = strlen(call);
    for (const char *at = rule->calls; (at = strstr(at, call)); at += length)
        if ((at == rule->calls || at[-1] == ',') && (!at[length] || at[length] == ',')) return 1;
    return 0;
}

// Tell whether a call fails, and set errno.
static int fails(const char *call, const char *path) {
    for (int i = 0; shared && path && i < shared->rules; i++) {
        struct rule *rule = &shared->rule[i];
        if (!is_of(rule, call) || fnmatch(rule->glob, path, 0)) continue;
        long number = __atomic_add_fetch(&rule->count, 1, __ATOMIC_SEQ_CST);
        if (!rule->first || number < rule->first) continue;
        if (number == rule->first) strncpy(rule->path, path, PATH_MAX - 1);
        if (rule->reach != ON_ALL && strcmp(rule->path, path)) continue;
        long hits = __atomic_add_fetch(&rule->hits, 1, __ATOMIC_SEQ_CST);
        if (rule->reach > 0 && hits > rule->reach) continue;
        errno = rule->error;
        return 1;
    }
    return 0;
}

// Return the path that an open file has; empty where no rule needs to know.
static const char *path_of(int descriptor, char *buffer) {
    char link[64];
    buffer[0] = 0;
    if (!shared || !shared->rules) return buffer;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    long length = syscall(SYS_readlink, link, buffer, PATH_MAX - 1);
    buffer[length > 0 ? length : 0] = 0;
    return buffer;
}

static int fails_on(const char *call, int descriptor) {
    char buffer[PATH_MAX];
    return fails(call, path_of(descriptor, buffer));
}

#define REAL(name) ({ static __typeof__(&name) real; \
                      real = real ? real : (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })

// Return the path with each name below the folded folder as it lies there, whatever its case.
static const char *found(const char *path, char *buffer) {
    size_t length = shared ? strlen(shared->folded) : 0;
    if (!length || strncmp(path, shared->folded, length) || path[length] != '/') return path;
    memcpy(buffer, path, length);
    for (const char *name = path + length; *name;) {
        size_t size = 1 + strcspn(name + 1, "/");
        buffer[length] = 0;
        DIR *folder = size > 1 ? REAL(opendir)(buffer) : NULL;
        struct dirent *like = NULL, *entry;
        while (folder && (entry = REAL(readdir)(folder))) {
            int same = strlen(entry->d_name) == size - 1;
            if (same && !strncasecmp(entry->d_name, name + 1, size - 1)) like = entry;
            if (same && !strncmp(entry->d_name, name + 1, size - 1)) break;
        }
        buffer[length] = '/';
        memcpy(buffer + length + 1, like ? like->d_name : name + 1, size - 1);
        if (folder) REAL(closedir)(folder);
        length += size, name += size;
    }
    buffer[length] = 0;
    return buffer;
}

// Return an absolute path for one that is relative to an open folder.
static const char *joined(int folder, const char *path, char *buffer) {
    char head[PATH_MAX];
    if (folder == AT_FDCWD || path[0] == '/' || !shared || !shared->rules) return path;
    return snprintf(buffer, PATH_MAX, "%s/%s", path_of(folder, head), path) < PATH_MAX ? buffer : path;
}

// ---- opening and listing

static int opens(int flags) { return (flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC)) != 0; }

#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    char buffer[PATH_MAX]; path = found(path, buffer); \
    return fails(opens(flags) ? "create" : "open", path) ? -1 : REAL(name)(path, flags, mode); }
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    char buffer[PATH_MAX], whole[PATH_MAX]; path = found(path, buffer); \
    const char *call = opens(flags) ? "create" : "open"; \
    return fails(call, joined(folder, path, whole)) ? -1 : REAL(name)(folder, path, flags, mode); }
#define FOPEN(name) FILE *name(const char *path, const char *mode) { \
    char buffer[PATH_MAX]; path = found(path, buffer); \
    return fails(strpbrk(mode, "wa+") ? "create" : "open", path) ? NULL : REAL(name)(path, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64) FOPEN(fopen) FOPEN(fopen64)

DIR *opendir(const char *path) {
    char buffer[PATH_MAX];
    path = found(path, buffer);
    return fails("list", path) ? NULL : REAL(opendir)(path);
}
#define READDIR(name, entry) struct entry *name(DIR *folder) { \
    return fails_on("entry", dirfd(folder)) ? NULL : REAL(name)(folder); }
READDIR(readdir, dirent) READDIR(readdir64, dirent64)

// ---- files that are open

#define ON_FILE(call, type, name, parameters, ...) type name parameters { \
    return fails_on(call, file) ? -1 : REAL(name)(__VA_ARGS__); }
ON_FILE("read", ssize_t, read, (int file, void *to, size_t size), file, to, size)
ON_FILE("read", ssize_t, pread, (int file, void *to, size_t size, off_t at), file, to, size, at)
ON_FILE("read", ssize_t, pread64, (int file, void *to, size_t size, off64_t at), file, to, size, at)
ON_FILE("read", ssize_t, readv, (int file, const struct iovec *to, int n), file, to, n)
ON_FILE("write", ssize_t, write, (int file, const void *from, size_t size), file, from, size)
ON_FILE("write", ssize_t, pwrite64, (int file, const void *from, size_t size, off64_t at), file, from, size, at)
ON_FILE("write", ssize_t, writev, (int file, const struct iovec *from, int n), file, from, n)
ON_FILE("write", ssize_t, sendfile64, (int file, int from, off64_t *at, size_t size), file, from, at, size)
ON_FILE("write", ssize_t, copy_file_range, (int from, off64_t *a, int file, off64_t *b, size_t size, unsigned f), from, a, file, b, size, f)
ON_FILE("write", int, ftruncate64, (int file, off64_t size), file, size)
ON_FILE("sync", int, fsync, (int file), file)
ON_FILE("lock", int, flock, (int file, int how), file, how)

#define FCNTL(name) int name(int file, int command, ...) { \
    va_list more; va_start(more, command); void *value = va_arg(more, void *); va_end(more); \
    int locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK; \
    return locks && fails_on("lock", file) ? -1 : REAL(name)(file, command, value); }
FCNTL(fcntl) FCNTL(fcntl64)

// ---- paths

#define ON_PATH_(call, name, parameters, ...) int name parameters { \
    char buffer[PATH_MAX]; path = found(path, buffer); \
    return fails(call, path) ? -1 : REAL(name)(__VA_ARGS__); }
#define AT_PATH(call, name, parameters, ...) int name parameters { \
    char buffer[PATH_MAX], whole[PATH_MAX]; path = found(path, buffer); \
    return fails(call, joined(at, path, whole)) ? -1 : REAL(name)(__VA_ARGS__); }
ON_PATH_("stat", stat, (const char *path, struct stat *to), path, to)
ON_PATH_("stat", stat64, (const char *path, struct stat64 *to), path, to)
ON_PATH_("stat", lstat, (const char *path, struct stat *to), path, to)
ON_PATH_("stat", lstat64, (const char *path, struct stat64 *to), path, to)
ON_PATH_("stat", access, (const char *path, int how), path, how)
AT_PATH("stat", fstatat, (int at, const char *path, struct stat *to, int how), at, path, to, how)
AT_PATH("stat", fstatat64, (int at, const char *path, struct stat64 *to, int how), at, path, to, how)
AT_PATH("stat", statx, (int at, const char *path, int how, unsigned mask, struct statx *to), at, path, how, mask, to)
ON_PATH_("mkdir", mkdir, (const char *path, mode_t mode), path, mode)
ON_PATH_("remove", unlink, (const char *path), path)
ON_PATH_("remove", rmdir, (const char *path), path)
AT_PATH("remove", unlinkat, (int at, const char *path, int how), at, path, how)
AT_PATH("times", utimensat, (int at, const char *path, const struct timespec to[2], int how), at, path, to, how)

int rename(const char *from, const char *path) {
    char buffer[PATH_MAX], other[PATH_MAX];
    from = found(from, other), path = found(path, buffer);
    return fails("rename", path) ? -1 : REAL(rename)(from, path);
}

// ---- time

int clock_gettime(clockid_t clock, struct timespec *to) {
    int result = REAL(clock_gettime)(clock, to);
    if (shared && clock == CLOCK_REALTIME) to->tv_sec += (time_t)shared->ahead;
    return result;
}
int gettimeofday(struct timeval *restrict to, void *restrict zone) {
    int result = REAL(gettimeofday)(to, zone);
    if (shared) to->tv_sec += (time_t)shared->ahead;
    return result;
}
time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return to ? *to = now.tv_sec : now.tv_sec;
}
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    struct timespec now, sooner = *until;
    if (shared && shared->hurry > 1) {
        REAL(clock_gettime)(clock, &now);
        if (!(flags & TIMER_ABSTIME)) now.tv_sec = now.tv_nsec = 0;
        double wait = (until->tv_sec - now.tv_sec + (until->tv_nsec - now.tv_nsec) / 1e9) / shared->hurry;
        wait = (wait > 0 ? wait : 0) + now.tv_nsec / 1e9;
        sooner.tv_sec = now.tv_sec + (time_t)wait;
        sooner.tv_nsec = (long)((wait - (time_t)wait) * 1e9);
    }
    return REAL(clock_nanosleep)(clock, flags, &sooner, left);
}
