/* What a hostile (or merely careless) project might put into its image: one static program, one misdeed a verb. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static char block[1 << 20];

static void show(const char *path)
{
	FILE *file = fopen(path, "r");
	size_t count;
	if (!file)
		return;
	while ((count = fread(block, 1, sizeof block, file)) > 0)
		fwrite(block, 1, count, stdout);
	fclose(file);
}

static void put(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	if (!file)
		return;
	fputs(text, file);
	fclose(file);
}

static int entries(const char *path)
{
	DIR *folder = opendir(path);
	int count = -2;
	if (!folder)
		return -1;
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

static void cat(void)
{
	ssize_t count;
	while ((count = read(0, block, sizeof block)) > 0)
		if (write(1, block, count) < 0)
			return;
}

static void hog(void)
{
	for (;;) {
		char *more = malloc(1 << 20);
		if (more)
			memset(more, 1, 1 << 20);
	}
}

static void fill(const char *folder, int limit)
{
	char name[256];
	for (int number = 0; number < limit; number++) {
		snprintf(name, sizeof name, "%s/f%d", folder, number);
		int file = open(name, O_CREAT | O_WRONLY, 0600);
		if (file < 0 || write(file, block, sizeof block) < 0) {
			printf("%s\n", strerror(errno));
			return;
		}
		close(file);
	}
}

static void fill_hidden(const char *folder)
{
	char name[256];
	for (int number = 0; number < 500; number++) {
		snprintf(name, sizeof name, "%s/f%d", folder, number);
		int file = open(name, O_CREAT | O_WRONLY, 0600);
		if (file < 0 || write(file, block, sizeof block) < 0)
			break;
		unlink(name);
	}
	pause();
}

static void inodes(const char *folder)
{
	char name[256];
	for (int number = 0;; number++) {
		snprintf(name, sizeof name, "%s/f%d", folder, number);
		int file = open(name, O_CREAT | O_WRONLY, 0600);
		if (file < 0) {
			printf("%s\n", strerror(errno));
			return;
		}
		close(file);
	}
}

static void litter(void)
{
	int folder;
	put("/out/good", "good");
	put("/out/.progress", "0.5");
	symlink("/etc/passwd", "/out/passwd");
	symlink("/", "/out/root");
	symlink("../../../../../../etc/shadow", "/out/shadow");
	put("/out/one", "two names");
	link("/out/one", "/out/two");
	mkfifo("/out/fifo", 0666);
	mknod("/out/device", S_IFBLK | 0666, makedev(8, 0));
	mknod("/out/null", S_IFCHR | 0666, makedev(1, 3));
	put("/out/line\nbreak", "x");
	put("/out/CASE", "1");
	put("/out/case", "2");
	mkdir("/out/closed", 0700);
	put("/out/closed/inside", "inside");
	chmod("/out/closed", 0);
	mkdir("/out/deep", 0700);
	folder = open("/out/deep", O_RDONLY);
	for (int level = 0; level < 25; level++) {
		int below;
		mkdirat(folder, "d", 0700);
		below = openat(folder, "d", O_RDONLY);
		close(folder);
		folder = below;
	}
	close(openat(folder, "bottom", O_CREAT | O_WRONLY, 0600));
}

static void said(const char *what, long result)
{
	printf("%s: %s\n", what, result < 0 ? "denied" : "DONE");
	fflush(stdout);
}

static void escape(void)
{
	struct sockaddr_in gateway = {.sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(0xac110001)};
	said("setuid", setuid(0));
	said("setgid", setgid(0));
	said("mount", mount("none", "/tmp", "tmpfs", 0, ""));
	said("remount", mount("none", "/", "", MS_REMOUNT, ""));
	said("user namespace", unshare(CLONE_NEWUSER));
	said("net namespace", unshare(CLONE_NEWNET));
	said("chroot", chroot("/tmp"));
	said("device", mknod("/tmp/sda", S_IFBLK | 0666, makedev(8, 0)));
	said("packets", socket(AF_PACKET, SOCK_RAW, 0));
	said("connect", connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&gateway, sizeof gateway));
	said("write /", open("/new", O_CREAT | O_WRONLY, 0600));
	said("write where all may", open("/shared/new", O_CREAT | O_WRONLY, 0600));
	said("write own program", open("/hostile", O_WRONLY));
	said("write /in", open("/in/new", O_CREAT | O_WRONLY, 0600));
	said("write /dev", open("/dev/new", O_CREAT | O_WRONLY, 0600));
	said("write /proc/sys", open("/proc/sys/kernel/hostname", O_WRONLY));
	said("write cgroup", open("/sys/fs/cgroup/pids/pids.max", O_WRONLY));
	said("sysrq", open("/proc/sysrq-trigger", O_WRONLY));
	said("kernel memory", open("/proc/kcore", O_RDONLY));
	said("kernel keys", syscall(SYS_keyctl, 0, -3, 0));
	said("kill init", kill(1, SIGKILL));
	said("trace init", ptrace(PTRACE_ATTACH, 1, 0, 0));
	said("init's memory", open("/proc/1/mem", O_RDWR));
	said("init's environment", open("/proc/1/environ", O_RDONLY));
	said("shared memory that stays", shmget(1, 4096, IPC_CREAT | 0666));
	said("queue that stays", syscall(SYS_mq_open, "q", O_CREAT | O_RDWR, 0600, 0));
	said("module", syscall(SYS_init_module, 0, 0, ""));
	said("bpf", syscall(SYS_bpf, 0, 0, 0));
	said("clock", syscall(SYS_settimeofday, block, 0));
	put("/tmp/program", "#!");
	chmod("/tmp/program", 0755);
	said("run from /tmp", execl("/tmp/program", "program", NULL));
}

static void on_term(int number)
{
	(void)number;
	put("/checkpoint/saved", "saved");
	_exit(0);
}

int main(int count, char **verbs)
{
	const char *verb = count > 1 ? verbs[1] : "cat";
	const char *what = count > 2 ? verbs[2] : "";
#define IS(name) (!strcmp(verb, name))
	if (IS("cat")) cat();
	if (IS("exit")) return atoi(what);
	if (IS("raise")) raise(atoi(what));
	if (IS("sleep")) sleep(atoi(what));
	if (IS("show")) show(what);
	if (IS("env")) for (char **entry = environ; *entry; entry++) puts(*entry);
	if (IS("forks")) for (;;) if (fork() < 0) usleep(1000);
	if (IS("hog")) hog();
	if (IS("hog-child")) { if (!fork()) hog(); wait(NULL); puts("survived"); }
	if (IS("fill")) fill(what, 1 << 20);
	if (IS("fill-hidden")) fill_hidden(what);
	if (IS("fill-one")) { int file = open(what, O_CREAT | O_WRONLY, 0600); while (write(file, block, sizeof block) > 0) ; }
	if (IS("inodes")) inodes(what);
	if (IS("flood")) for (;;) if (write(atoi(what), block, 65536) < 0) return 1;
	if (IS("stubborn")) { signal(SIGTERM, SIG_IGN); for (;;) pause(); }
	if (IS("litter")) litter();
	if (IS("escape")) escape();
	if (IS("traces")) {
		printf("%d %d %d\n", entries("/tmp"), entries("/dev/shm"), entries("/out"));
		put("/tmp/trace", "1"); put("/dev/shm/trace", "2"); put("/out/trace", "3");
		mkdir("/tmp/folder", 0); symlink("/etc", "/tmp/link");
	}
	if (IS("linger")) { if (!fork()) { setsid(); if (*what) fill(what, 5); pause(); } puts("done"); }
	if (IS("count")) {
		char number[16] = "0";
		int file = open("/checkpoint/n", O_RDONLY);
		if (file >= 0) number[read(file, number, 15)] = 0;
		int n = atoi(number);
		snprintf(number, sizeof number, "%d", n + 1);
		unlink("/checkpoint/n");
		put("/checkpoint/n", number);
		if (n < atoi(what)) sleep(60);
		printf("%d\n", n);
	}
	if (IS("make")) {
		int file = open(what, O_CREAT | O_WRONLY, 0600);
		for (long left = count > 3 ? atol(verbs[3]) : 0; left > 0; left -= 65536) write(file, block, left < 65536 ? left : 65536);
		puts("made");
	}
	if (IS("checkpoint")) {
		show("/checkpoint/saved");
		signal(SIGTERM, on_term);
		put("/out/.progress", "0.25");
		sleep(atoi(what));
		puts("end");
	}
	return 0;
}
