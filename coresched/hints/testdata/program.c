/* Writes a table of hints, and keeps it until its input ends. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <sys/syscall.h>

#include "junction_hints.h"

int main(void)
{
	struct junction_hints h;
	struct junction_hint *me, *other;
	uint64_t from = junction_hints_now();
	pid_t tid = (pid_t)syscall(SYS_gettid);
	uint32_t i;

	if (junction_hints_open(&h, 17, 2) == 0 || errno != EINVAL)
		return 2;
	if (junction_hints_open(&h, 64, 3) < 0) {
		perror("junction_hints_open");
		return 1;
	}
	junction_hints_class(&h, 2, JUNCTION_QOS_BATCH, 5000000);
	me = junction_hints_of(&h, tid);
	junction_hint_set(me, 2, from, JUNCTION_HINT_IDLE);
	if (junction_hints_of(&h, tid) != me)
		return 3;
	for (i = 1; i < JUNCTION_HINTS_PROBES; i++) /* the same places */
		if (!junction_hints_of(&h, tid + (pid_t)(64 * i)))
			return 4;
	if (junction_hints_of(&h, tid + 64 * 1000))
		return 5;
	junction_hint_release(junction_hints_of(&h, tid + 64));
	other = junction_hints_of(&h, tid + 64 * 1000);
	if (!other)
		return 6;
	junction_hint_set(other, 1, 7, 0);
	printf("%d %llu\n", (int)tid, (unsigned long long)from);
	fflush(stdout);
	while (getchar() != EOF)
		;
	junction_hints_close(&h);
	return 0;
}
