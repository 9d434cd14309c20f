/* Writes one byte as its first act, for measuring the time to a program's first
 * instruction. With an argument it then waits for a signal: the idle program. */
#include <unistd.h>

int main(int argc, char **argv)
{
	if (write(1, "x", 1) != 1)
		return 1;
	if (argc > 1)
		pause();
	return 0;
}
