/* Takes pages one by one, more than a process of Linux may have mappings
 * (vm.max_map_count); or waits for the file of a mapping to be cut off. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc > 1) {
		int f = open(argv[1], O_RDWR);
		volatile char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);

		printf("first %d\n", page[4096]);
		fflush(stdout);
		getchar();
		return page[4096];
	}
	for (int i = 0; i < 70000; i++) {
		volatile char *page = mmap(0, 4096, i % 2 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page != MAP_FAILED)
			(void)*page;
	}
	puts("goes on");
	return 0;
}
