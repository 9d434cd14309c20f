/* Signals to all threads, counted exactly: queued ones in order, plain ones one
 * at a time, timers with what they overran; handlers spoil every register. */
#include "stress.h"

#include <sys/time.h>

enum { MOST = 32, COMPUTERS = 2, SELF_SENDERS = 3, STACK = 1 << 16 };
#define QUEUED SIGRTMIN
#define TICK (SIGRTMIN + 1)

/* A thread that gets signals. Threads only ever join, and leave at the end. */
static struct receiver {
	pid_t tid;
	int queued, handled_queued; /* values that were sent, and handled */
	int plain, handled_plain;
	char *stack;
} receivers[MOST];
static int receiving;
static volatile int sending = 1;
static __thread struct receiver *self;
static unsigned char *text_of_return; /* a `ret` */
static pthread_t computers[COMPUTERS], sender, self_senders[SELF_SENDERS];

/* Spoils what a handler may, and looks whether it starts as it should. */
static void spoil(void)
{
	static const struct state nothing = { .fx = { 0x7f, 0x03, [24] = 0x80, 0x1f } };
	struct state out;
	uint64_t flags;
	char here;

	__asm__ volatile("pushfq\n popq %0" : "=r"(flags));
	if (flags & DF)
		fail("a handler starts with the direction flag");
	if (self && (&here < self->stack || &here >= self->stack + STACK))
		fail("a handler is not on its stack");
	probe(&nothing, &out, text_of_return, vectors());
}

static void handle(int sig, siginfo_t *info, void *context)
{
	int error = errno;

	spoil();
	count(SIGNALS, 1);
	if (sig == QUEUED) {
		if (info->si_value.sival_int != self->handled_queued)
			fail("queued signal %d came for %d", info->si_value.sival_int, self->handled_queued);
		__atomic_add_fetch(&self->handled_queued, 1, __ATOMIC_RELEASE);
	} else if (sig == SIGUSR1)
		__atomic_add_fetch(&self->handled_plain, 1, __ATOMIC_RELEASE);
	else if (sig == TICK)
		count(TIMERS, 1 + info->si_overrun);
	else
		count(TIMERS, 1); /* SIGALRM, of any thread */
	errno = error;
}

void receive_signals(void)
{
	struct receiver *r = &receivers[__atomic_fetch_add(&receiving, 1, __ATOMIC_RELAXED)];
	stack_t alternate = { .ss_size = STACK };

	r->stack = alternate.ss_sp = mmap(0, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(r->stack != MAP_FAILED && !sigaltstack(&alternate, 0), "an alternate stack");
	self = r;
	__atomic_store_n(&r->tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
}

static void await(const int *value, int wanted, const char *what)
{
	for (long i = 0; __atomic_load_n(value, __ATOMIC_ACQUIRE) != wanted; i++) {
		if (i > 200000) /* about half a minute */
			fail("lost: %s: %d of %d", what, *value, wanted);
		if (i > 100)
			usleep(150);
		else
			sched_yield();
	}
}

static void queue(struct receiver *r)
{
	siginfo_t info = { .si_signo = QUEUED, .si_code = SI_QUEUE, .si_pid = getpid(), .si_uid = getuid(), .si_value.sival_int = r->queued };

	if (!syscall(SYS_rt_tgsigqueueinfo, getpid(), r->tid, QUEUED, &info))
		r->queued++;
	else if (errno == EAGAIN) /* the queue is full */
		await(&r->handled_queued, r->queued, "queued signals");
	else
		must(0, "rt_tgsigqueueinfo");
}

static void plain(struct receiver *r)
{
	must(!syscall(SYS_tgkill, getpid(), r->tid, SIGUSR1), "tgkill");
	await(&r->handled_plain, ++r->plain, "a plain signal");
}

static void *send(void *arg)
{
	while (sending) {
		int n = __atomic_load_n(&receiving, __ATOMIC_RELAXED);

		for (int i = 0; i < n; i++) {
			struct receiver *r = &receivers[i];

			if (!__atomic_load_n(&r->tid, __ATOMIC_ACQUIRE))
				continue;
			for (int j = rnd() % 8; j > 0; j--)
				queue(r);
			plain(r);
		}
	}
	for (int i = 0; i < receiving; i++)
		await(&receivers[i].handled_queued, receivers[i].queued, "queued signals at the end");
	return 0;
}

/* Signals to itself are handled before the call returns. */
static __thread volatile int own, nested;

static void handle_own(int sig)
{
	count(SIGNALS, 1);
	if (++own % 16 == 0 && !nested++) /* one inside the other */
		raise(SIGUSR2);
	nested = 0;
}

static void *send_self(void *arg)
{
	int tid = syscall(SYS_gettid), pid = getpid();

	while (sending) {
		int before = own;

		must(!syscall(SYS_tgkill, pid, tid, SIGUSR2), "tgkill");
		if (own <= before)
			fail("a signal to itself is late");
	}
	return 0;
}

/* Registers while timers and signals interrupt: no system call here. */
static void *compute(void *arg)
{
	unsigned char *loop = text(0, "\x48\x83\xe8\x01\x75\xfa\xc3", 7); /* 1: sub $1,%rax; jnz 1b; ret */
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TICK };
	struct itimerspec often = { { 0, 700000 }, { 0, 700000 } };
	timer_t timer;

	receive_signals();
	event._sigev_un._tid = syscall(SYS_gettid);
	must(!timer_create(CLOCK_MONOTONIC, &event, &timer) && !timer_settime(timer, 0, &often, 0), "a timer");
	while (!stop)
		check(loop, -1, 1 + rnd() % 50000, 0, rnd(), rnd() & DF);
	timer_delete(timer);
	return 0;
}

void prepare_handlers(void) { text_of_return = text(0, "\xc3", 1); }

void start_signals(void)
{
	struct sigaction a = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	struct itimerval often = { { 0, 1500 }, { 0, 1500 } };
	struct sigaction b = { .sa_handler = handle_own, .sa_flags = SA_NODEFER | SA_RESTART };

	sigfillset(&a.sa_mask); /* a stack holds one frame with all vectors, and a probe */
	sigaction(QUEUED, &a, 0);
	sigaction(TICK, &a, 0);
	sigaction(SIGUSR1, &a, 0);
	sigaction(SIGALRM, &a, 0);
	sigaction(SIGUSR2, &b, 0);
	receive_signals(); /* the first thread */
	for (int i = 0; i < COMPUTERS; i++)
		computers[i] = spawn(compute, 0);
	sender = spawn(send, 0);
	for (int i = 0; i < SELF_SENDERS; i++)
		self_senders[i] = spawn(send_self, 0);
	setitimer(ITIMER_REAL, &often, 0);
}

void end_signals(void)
{
	struct itimerval never = { 0 };

	sending = 0;
	pthread_join(sender, 0);
	for (int i = 0; i < SELF_SENDERS; i++)
		pthread_join(self_senders[i], 0);
	setitimer(ITIMER_REAL, &never, 0);
}

void end_computing(void)
{
	for (int i = 0; i < COMPUTERS; i++)
		pthread_join(computers[i], 0);
}
