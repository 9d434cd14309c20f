/* Starts argv[1] children by vfork, which run in the parent's memory and end,
 * and then one by posix_spawn, which executes /bin/echo. */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static volatile int ran, i;
	char *echo[] = { "echo", "spawned", 0 };
	int n = argc > 1 ? atoi(argv[1]) : 0, status;
	pid_t pid;

	for (; i < n; i++) {
		pid = vfork();
		if (pid == 0) {
			ran++;
			_exit(3);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 3)
			return 1;
	}
	if (ran != n)
		return 2;
	printf("%d\n", ran);
	fflush(stdout);
	if (posix_spawn(&pid, "/bin/echo", 0, 0, echo, environ) || waitpid(pid, &status, 0) != pid)
		return 4;
	return WEXITSTATUS(status);
}
