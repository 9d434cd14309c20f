#include "conform.h"

static struct conform_case *cases;

void register_case(struct conform_case *c)
{
	c->next = cases;
	cases = c;
}

void must(int ok, const char *what)
{
	if (ok)
		return;
	printf("%s failed: %s\n", what, strerror(errno));
	exit(99);
}

void *map(size_t size, int protection)
{
	void *p = mmap(0, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED, "mmap");
	return p;
}

void on(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction a = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

	must(!sigaction(sig, &a, 0), "sigaction");
}

unsigned char *text(const void *code, size_t size)
{
	char name[] = "/tmp/conform-XXXXXX";
	int fd = mkstemp(name);

	must(fd >= 0 && !unlink(name) && !ftruncate(fd, (size + 4095) & ~4095ul) && pwrite(fd, code, size, 0) == (ssize_t)size, "a file");
	unsigned char *p = mmap(0, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	must(p != MAP_FAILED, "mmap");
	close(fd);
	return p;
}

unsigned char *new_site(enum shape s, unsigned nr)
{
	unsigned char code[SITE_AT + SITE_MAX];

	memset(code, 0xcc, sizeof code);
	return text(code, SITE_AT + put_site(code + SITE_AT, s, nr)) + SITE_AT;
}

unsigned char *written_site(enum shape s, unsigned nr)
{
	unsigned char *p = map(4096, PROT_READ | PROT_WRITE | PROT_EXEC);

	put_site(p + SITE_AT, s, nr);
	return p + SITE_AT;
}

long call_site(const void *site, long rax, long a, long b, long c)
{
	long ret;

	__asm__ volatile(
		"lea -256(%%rsp),%%rsp\n call *%[site]\n lea 256(%%rsp),%%rsp" /* over the red zone */
		: "=a"(ret)
		: "a"(rax), "D"(a), "S"(b), "d"(c), [site] "r"(site)
		: "rcx", "r11", "memory", "cc");
	return ret;
}

void warm(const void *site, long rax)
{
	long first = call_site(site, rax, 0, 0, 0);

	for (int i = 0; i < 100; i++)
		if (call_site(site, rax, 0, 0, 0) != first) {
			printf("the call's result changed after %d calls\n", i + 1);
			exit(98);
		}
}

int main(int argc, char **argv)
{
	setvbuf(stdout, 0, _IOLBF, 0);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
	/* Calls that are told apart by their results: in an instance, the first
	 * program's parent and the superuser are both 0. */
	must(!setresgid(4321, 0, 0) && !setresuid(1234, 0, 0), "setresuid");
	for (struct conform_case *c = cases; c; c = c->next) {
		if (argc > 1 && strcmp(argv[1], "list") == 0)
			puts(c->name);
		else if (argc > 1 && strcmp(argv[1], c->name) == 0) {
			c->run();
			return 0;
		}
	}
	return argc > 1 && strcmp(argv[1], "list") == 0 ? 0 : 97;
}
