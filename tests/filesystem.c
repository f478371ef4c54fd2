/* What a process does to a folder, noted, and failing on demand; see filesystem.py. To be loaded by LD_PRELOAD. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static volatile int read_only;

/* The path that `path` stands for, relative to an open folder; empty where that is not in the folder that is watched. */
static char *
resolve(char *found, int folder, const char *path)
{
    const char *root = getenv("WATCHED");
    char link[64], begin[PATH_MAX] = "";

    if (path[0] != '/') {
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t size = readlink(link, begin, sizeof begin - 1);
        begin[size < 0 ? 0 : size] = 0;
    }
    snprintf(found, PATH_MAX, *begin && *path ? "%s/%s" : "%s%s", begin, path);
    if (!root || strncmp(found, root, strlen(root)))
        *found = 0;
    return found;
}

static char *
parent(char *found, const char *path)
{
    strcpy(found, path);
    char *slash = strrchr(found, '/');
    if (slash)
        *slash = 0;
    return found;
}

/* Whether the file of faults has that line now. */
static int
has_fault(const char *word, const char *path)
{
    char text[8192], line[PATH_MAX + 16];
    const char *faults = getenv("FAULTS");
    int fd = faults ? syscall(SYS_openat, AT_FDCWD, faults, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    ssize_t size = syscall(SYS_read, fd, text + 1, sizeof text - 2);
    syscall(SYS_close, fd);
    text[0] = '\n';
    text[size < 0 ? 1 : size + 1] = 0;
    snprintf(line, sizeof line, "\n%s %s\n", word, path);
    return strstr(text, line) != NULL;
}

/* The number of the error that a sync fails with; 0: it does not. */
static int
fault_of_sync(const char *path)
{
    while (has_fault("hold", path))
        usleep(1000);
    if (has_fault("die", path))
        _exit(9);
    if (has_fault("read-only", path))
        read_only = 1;
    if (read_only)
        return EROFS;
    return *path && (has_fault("sync", path) || has_fault("sync", "*")) ? EIO : 0;
}

static int
fault_of_change(const char *path)
{
    char folder[PATH_MAX];
    return *path && (read_only || has_fault("change", parent(folder, path))) ? EROFS : 0;
}

static void
note(const char *word, const char *path, const char *other)
{
    char line[2 * PATH_MAX + 32];
    const char *notes = getenv("NOTES");
    int before = errno;
    if (notes && *path) {
        int size = snprintf(line, sizeof line, "%s\t%s\t%s\n", word, path, other);
        int fd = syscall(SYS_openat, AT_FDCWD, notes, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        syscall(SYS_write, fd, line, size);
        syscall(SYS_close, fd);
    }
    errno = before;
}

static int
fail(int error)
{
    errno = error;
    return -1;
}

static int
change(int failed, int result, const char *word, const char *path, const char *other)
{
    if (failed)
        return fail(failed);
    if (result >= 0)
        note(word, path, other);
    return result;
}

static int
opened(int folder, const char *path, int flags, mode_t mode)
{
    char found[PATH_MAX];
    struct stat status;
    if (!(flags & O_CREAT))
        return NEXT(openat)(folder, path, flags, mode);
    int is_new = fstatat(folder, path, &status, AT_SYMLINK_NOFOLLOW) != 0;
    int failed = is_new ? fault_of_change(resolve(found, folder, path)) : 0;
    int fd = failed ? -1 : NEXT(openat)(folder, path, flags, mode);
    return is_new ? change(failed, fd, "create", found, "") : fd;
}

#define OPEN(name, with_folder) \
    int name(with_folder const char *path, int flags, ...) \
    { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return opened(FOLDER, path, flags, mode); \
    }
#define NOTHING
#define FOLDER AT_FDCWD
OPEN(open, NOTHING)
OPEN(open64, NOTHING)
#undef FOLDER
#define FOLDER folder
#define WITH_FOLDER int folder,
OPEN(openat, WITH_FOLDER)
OPEN(openat64, WITH_FOLDER)

int
mkdirat(int folder, const char *path, mode_t mode)
{
    char found[PATH_MAX];
    int failed = fault_of_change(resolve(found, folder, path));
    return change(failed, failed ? -1 : NEXT(mkdirat)(folder, path, mode), "mkdir", found, "");
}

int
mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int
unlinkat(int folder, const char *path, int flags)
{
    char found[PATH_MAX];
    int failed = fault_of_change(resolve(found, folder, path));
    return change(failed, failed ? -1 : NEXT(unlinkat)(folder, path, flags), "unlink", found, "");
}

int
unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int
rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int
renameat(int folder, const char *path, int other_folder, const char *other)
{
    char from[PATH_MAX], to[PATH_MAX];
    int failed = fault_of_change(resolve(from, folder, path));
    failed = failed ? failed : fault_of_change(resolve(to, other_folder, other));
    return change(failed, failed ? -1 : NEXT(renameat)(folder, path, other_folder, other), "rename", from, to);
}

int
rename(const char *path, const char *other)
{
    return renameat(AT_FDCWD, path, AT_FDCWD, other);
}

ssize_t
write(int fd, const void *content, size_t size)
{
    char found[PATH_MAX];
    ssize_t written = NEXT(write)(fd, content, size);
    if (written > 0)
        note("write", resolve(found, fd, ""), "");
    return written;
}

int
fsync(int fd)
{
    char found[PATH_MAX];
    int failed = fault_of_sync(resolve(found, fd, ""));
    return change(failed, failed ? -1 : NEXT(fsync)(fd), "sync", found, "");
}

int
fdatasync(int fd)
{
    return fsync(fd);
}

int
syncfs(int fd)
{
    char found[PATH_MAX];
    int failed = fault_of_sync(resolve(found, fd, ""));
    return change(failed, failed ? -1 : NEXT(syncfs)(fd), "sync all", found, "");
}
