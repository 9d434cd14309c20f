/*
 * Hints for the policy of a core scheduling enclave: when the job of a thread has
 * to be done, how urgent its kind of work is, and whether it has anything to do.
 * For C and C++ with GCC's atomics, on Linux; define _GNU_SOURCE first. What is in
 * the table, and who reads it when: package junction/coresched/hints.
 *
 *	struct junction_hints h;
 *	if (junction_hints_open(&h, 1024, 2) < 0)        // one for the process
 *		...                                      // errno says why
 *	junction_hints_class(&h, 1, JUNCTION_QOS_BATCH, 0);
 *	struct junction_hint *me = junction_hints_of(&h, gettid());
 *	junction_hint_set(me, 1, 0, 0);                  // before each job
 *	junction_hint_release(me);                       // before the thread ends
 */
#ifndef JUNCTION_HINTS_H
#define JUNCTION_HINTS_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define JUNCTION_HINTS_MAGIC 0x544e484au
#define JUNCTION_HINTS_VERSION 1u
#define JUNCTION_HINTS_PROBES 16u
#define JUNCTION_HINTS_MAX_ITEMS 16384u
#define JUNCTION_HINTS_MAX_CLASSES 256u

enum junction_qos {
	JUNCTION_QOS_DEFAULT = 0, /* what the thread's scheduling class says */
	JUNCTION_QOS_LATENCY = 1, /* someone waits for it */
	JUNCTION_QOS_BATCH = 2	  /* it may wait */
};

/* The thread has nothing to do, though it runs: it is given no core. */
#define JUNCTION_HINT_IDLE 1u

struct junction_hints_header {
	uint32_t magic, version, items, classes;
	uint8_t reserved[48];
};

struct junction_work_class {
	uint32_t count, qos;
	uint64_t period;
	uint8_t reserved[16];
};

struct junction_hint {
	uint32_t count, tid, work_class, flags;
	uint64_t deadline;
	uint8_t reserved[40];
};

/* What the process knows of its table. */
struct junction_hints {
	struct junction_hints_header *header;
	struct junction_work_class *classes;
	struct junction_hint *items;
	uint32_t n_items, n_classes;
	size_t size;
	int fd; /* while it is open, the table is found */
};

/* Ends the table, and with it all hints. */
static inline void junction_hints_close(struct junction_hints *h)
{
	if (h->header)
		munmap(h->header, h->size);
	if (h->fd >= 0)
		close(h->fd);
	h->header = NULL;
	h->fd = -1;
}

/* Makes the table: items threads, a power of two from 16 on, and classes work
 * classes. Returns 0, or -1 with errno. */
static inline int junction_hints_open(struct junction_hints *h, uint32_t items, uint32_t classes)
{
	void *m;
	int saved;

	h->header = NULL;
	h->fd = -1;
	if (items < JUNCTION_HINTS_PROBES || items > JUNCTION_HINTS_MAX_ITEMS || (items & (items - 1)) || !classes ||
	    classes > JUNCTION_HINTS_MAX_CLASSES) {
		errno = EINVAL;
		return -1;
	}
	h->n_items = items;
	h->n_classes = classes;
	h->size = sizeof(struct junction_hints_header) + classes * sizeof(struct junction_work_class) +
		  items * sizeof(struct junction_hint);
	h->fd = memfd_create("junction-hints", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (h->fd < 0 || ftruncate(h->fd, (off_t)h->size) < 0)
		goto fail;
	m = mmap(NULL, h->size, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, 0);
	if (m == MAP_FAILED)
		goto fail;
	h->header = (struct junction_hints_header *)m;
	h->classes = (struct junction_work_class *)(h->header + 1);
	h->items = (struct junction_hint *)(h->classes + classes);
	h->header->magic = JUNCTION_HINTS_MAGIC;
	h->header->version = JUNCTION_HINTS_VERSION;
	h->header->items = items;
	h->header->classes = classes;
	if (fcntl(h->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		goto fail;
	return 0;
fail:
	saved = errno;
	junction_hints_close(h);
	errno = saved;
	return -1;
}

/* Says what a work class is; period, in ns, gives jobs without a deadline one, so
 * long after their thread woke. By one thread at a time. */
static inline void junction_hints_class(struct junction_hints *h, uint32_t i, enum junction_qos qos, uint64_t period)
{
	struct junction_work_class *c = &h->classes[i];

	__atomic_add_fetch(&c->count, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->qos, (uint32_t)qos, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->period, period, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&c->count, 1, __ATOMIC_SEQ_CST);
}

/* Returns the hint of a thread, a new one if it has none, or NULL if there is no
 * room. */
static inline struct junction_hint *junction_hints_of(struct junction_hints *h, pid_t tid)
{
	uint32_t i, none, mask = h->n_items - 1;

	for (i = 0; i < JUNCTION_HINTS_PROBES; i++) {
		struct junction_hint *p = &h->items[((uint32_t)tid + i) & mask];
		if (__atomic_load_n(&p->tid, __ATOMIC_SEQ_CST) == (uint32_t)tid)
			return p;
	}
	for (i = 0; i < JUNCTION_HINTS_PROBES; i++) {
		struct junction_hint *p = &h->items[((uint32_t)tid + i) & mask];
		none = 0;
		if (__atomic_compare_exchange_n(&p->tid, &none, (uint32_t)tid, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return p;
	}
	return NULL;
}

/* Says how a thread stands: the number of its work class, the deadline of its job
 * in ns by CLOCK_MONOTONIC or 0, and 0 or JUNCTION_HINT_IDLE. By one thread at a
 * time for each hint. Write it before the thread is woken for its job: hints are
 * read when a thread wakes, else every 10 ms. */
static inline void junction_hint_set(struct junction_hint *p, uint32_t work_class, uint64_t deadline, uint32_t flags)
{
	__atomic_add_fetch(&p->count, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&p->work_class, work_class, __ATOMIC_SEQ_CST);
	__atomic_store_n(&p->flags, flags, __ATOMIC_SEQ_CST);
	__atomic_store_n(&p->deadline, deadline, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&p->count, 1, __ATOMIC_SEQ_CST);
}

/* Gives the hint of a thread up, for another one. */
static inline void junction_hint_release(struct junction_hint *p)
{
	junction_hint_set(p, 0, 0, 0);
	__atomic_store_n(&p->tid, 0, __ATOMIC_SEQ_CST);
}

/* The clock of deadlines. */
static inline uint64_t junction_hints_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

#endif
