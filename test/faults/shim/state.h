/* What the module knows besides its control block, and what each of its
 * functions begins and ends with. Included once, by shim.c. */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "control.h"
#include "cryptoki.h"

static struct control *control;
static struct function_list *real, list;

/* gate is held for reading by calls on sessions, and for writing by who ends
 * them all: modules do not bear that a session is closed while it is used. */
static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;
/* guard covers what follows; taken after gate. */
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct session {
	ulong handle; /* 0: free */
	int64_t used; /* ms */
	int signing, authenticated, searching;
} sessions[512];
static int64_t token_used;
static int gone, sticky;
static char user_pin[256];
static ulong user_pin_length;

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void pause_ms(uint32_t ms)
{
	struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
	nanosleep(&t, NULL);
}

static uint32_t get(uint32_t *value) { return __atomic_load_n(value, __ATOMIC_SEQ_CST); }
static void set(uint32_t *value, uint32_t to) { __atomic_store_n(value, to, __ATOMIC_SEQ_CST); }

/* take counts a counter down, and reports whether there was anything left. */
static int take(uint32_t *counter)
{
	uint32_t left = get(counter);
	do {
		if (left == 0)
			return 0;
		if (left == FOR_EVER)
			return 1;
	} while (!__atomic_compare_exchange_n(counter, &left, left - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	return 1;
}

static struct rule *rule_of(const char *name)
{
	for (int i = 0; i < MAX_RULES; i++)
		if (strncmp(control->rules[i].name, name, NAME_LENGTH) == 0)
			return &control->rules[i];
	return NULL;
}

/* fails does what the rule for the function says. It reports whether the call
 * ends here, with *rv. after is the code to
 * return once the call is made: for success or, with replace, for failure. */
static int fails(const char *name, ulong *rv, ulong *after, int *replace)
{
	struct rule *r = rule_of(name);
	*after = CKR_OK;
	*replace = 0;
	if (r == NULL)
		return 0;
	__atomic_add_fetch(&r->calls, 1, __ATOMIC_SEQ_CST);
	if (take(&r->skip) || !take(&r->times))
		return 0;
	switch (get(&r->action)) {
	case HANG:
		while (get(&r->action) == HANG)
			pause_ms(1);
		return 0;
	case CRASH:
		abort();
	case DELAY:
		pause_ms(get(&r->millis));
		return 0;
	case REPLACE_CODE:
		*after = get(&r->code);
		*replace = 1;
		return 0;
	case RETURN_AFTER:
		*after = get(&r->code);
		return 0;
	}
	*rv = get(&r->code);
	return 1;
}

static void forget_all(void)
{
	for (size_t i = 0; i < sizeof sessions / sizeof *sessions; i++)
		if (sessions[i].handle != 0 && sessions[i].searching)
			__atomic_sub_fetch(&control->open_searches, 1, __ATOMIC_SEQ_CST);
	memset(sessions, 0, sizeof sessions);
	set(&control->open_sessions, 0);
}

static void forget(struct session *s)
{
	if (s->searching)
		__atomic_sub_fetch(&control->open_searches, 1, __ATOMIC_SEQ_CST);
	memset(s, 0, sizeof *s);
	__atomic_sub_fetch(&control->open_sessions, 1, __ATOMIC_SEQ_CST);
}

static struct session *find(ulong handle)
{
	for (size_t i = 0; handle != 0 && i < sizeof sessions / sizeof *sessions; i++)
		if (sessions[i].handle == handle)
			return &sessions[i];
	return NULL;
}

/* close_every ends every session of every slot: so does a token that is pulled. */
static void close_every(void)
{
	ulong slots[64], n = 64;
	if (CALL(C_GetSlotList)(1, slots, &n) == CKR_OK)
		for (ulong i = 0; i < n; i++)
			CALL(C_CloseAllSessions)(slots[i]);
	forget_all();
}

/* pulled and expired tell what is due to the token as a whole. Called with
 * guard held. */
static int pulled(void) { return get(&control->absent) != PRESENT && !gone; }

static int expired(void)
{
	uint32_t limit = get(&control->idle_millis);
	return limit != 0 && get(&control->idle_scope) == IDLE_TOKEN && now() - token_used > limit;
}

/* settle ends every session when the token was pulled or was idle too long,
 * and follows its return. It reports whether the token is away. */
static int settle(void)
{
	pthread_mutex_lock(&guard);
	int due = pulled() || expired();
	pthread_mutex_unlock(&guard);
	if (due)
		pthread_rwlock_wrlock(&gate);
	pthread_mutex_lock(&guard);
	if (due && (pulled() || expired())) {
		close_every();
		token_used = now();
	}
	uint32_t absent = get(&control->absent);
	if (absent != PRESENT) {
		gone = gone || due; /* who pulls it now is seen by the next call */
		sticky = absent == ABSENT_UNTIL_INITIALIZE;
	} else if (!sticky) {
		gone = 0;
	}
	int away = gone;
	pthread_mutex_unlock(&guard);
	if (due)
		pthread_rwlock_unlock(&gate);
	return away;
}

/* touch begins a call on a session, once gate is held. */
static ulong touch(ulong handle)
{
	ulong rv = CKR_OK;
	int64_t t = now();
	pthread_mutex_lock(&guard);
	uint32_t limit = get(&control->idle_millis);
	struct session *s = find(handle);
	if (gone) {
		rv = CKR_DEVICE_REMOVED;
	} else if (s == NULL) {
		rv = CKR_SESSION_HANDLE_INVALID;
	} else if (limit != 0 && get(&control->idle_scope) == IDLE_SESSION && t - s->used > limit) {
		CALL(C_CloseSession)(handle);
		forget(s);
		rv = CKR_SESSION_HANDLE_INVALID;
	} else {
		s->used = token_used = t;
	}
	pthread_mutex_unlock(&guard);
	return rv;
}

static void leave_gate(pthread_rwlock_t **held) { pthread_rwlock_unlock(*held); }

/* HOLD_GATE keeps gate until the function returns. */
#define HOLD_GATE                                                                                                                \
	settle();                                                                                                                \
	__attribute__((cleanup(leave_gate))) pthread_rwlock_t *held = &gate;                                                     \
	pthread_rwlock_rdlock(held);

#define ENTER(name)                                                                                                              \
	int replace;                                                                                                             \
	ulong rv, after;                                                                                                         \
	if (fails(#name, &rv, &after, &replace))                                                                                           \
		return rv;
#define ENTER_SESSION(name, session)                                                                                             \
	ENTER(name)                                                                                                              \
	HOLD_GATE                                                                                                                \
	if ((rv = touch(session)) != CKR_OK)                                                                                     \
		return rv;
#define LEAVE return (rv == CKR_OK) != replace ? after : rv;
