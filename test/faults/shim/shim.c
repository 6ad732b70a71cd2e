/* A PKCS#11 module that wraps another and fails on order. What it does is
 * said by a control block (control.h); which module it wraps, by a file beside
 * it (its own path and ".module"). Only libc is needed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "state.h"

static ulong f_Initialize(void *args)
{
	ENTER(C_Initialize)
	rv = CALL(C_Initialize)(args);
	pthread_mutex_lock(&guard);
	forget_all();
	token_used = now();
	gone = sticky = get(&control->absent) != PRESENT;
	pthread_mutex_unlock(&guard);
	LEAVE
}

static ulong f_Finalize(void *reserved)
{
	ENTER(C_Finalize)
	rv = CALL(C_Finalize)(reserved);
	pthread_mutex_lock(&guard);
	forget_all();
	pthread_mutex_unlock(&guard);
	LEAVE
}

static ulong f_GetSlotList(unsigned char present, ulong *slots, ulong *count)
{
	ENTER(C_GetSlotList)
	if (present && settle()) {
		*count = 0;
		return CKR_OK;
	}
	rv = CALL(C_GetSlotList)(present, slots, count);
	LEAVE
}

static ulong f_GetTokenInfo(ulong slot, struct token_info *info)
{
	ENTER(C_GetTokenInfo)
	if (settle())
		return CKR_TOKEN_NOT_PRESENT;
	if ((rv = CALL(C_GetTokenInfo)(slot, info)) != CKR_OK)
		return rv;
	info->flags |= get(&control->token_flags);
	uint32_t tries = get(&control->pin_tries), left = get(&control->pin_left);
	if (tries != 0) {
		info->flags &= ~(ulong)(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED);
		info->flags |= left == 0 ? CKF_USER_PIN_LOCKED : left == 1 && !get(&control->hide_final_try) ? CKF_USER_PIN_FINAL_TRY : 0;
		info->flags |= left < tries ? CKF_USER_PIN_COUNT_LOW : 0;
	}
	uint32_t most = get(&control->max_sessions);
	if (most != 0 && !get(&control->hide_cap))
		info->max_sessions = info->max_rw_sessions = most;
	uint32_t ahead = get(&control->clock_ahead);
	if (ahead != 0) {
		time_t t = time(NULL) + ahead;
		struct tm utc;
		char text[32];
		gmtime_r(&t, &utc);
		strftime(text, sizeof text, "%Y%m%d%H%M%S00", &utc);
		memcpy(info->utc_time, text, sizeof info->utc_time);
		info->flags |= CKF_CLOCK_ON_TOKEN;
	}
	LEAVE
}

static ulong f_GetMechanismList(ulong slot, ulong *mechanisms, ulong *count)
{
	ENTER(C_GetMechanismList)
	if (settle())
		return CKR_TOKEN_NOT_PRESENT;
	rv = CALL(C_GetMechanismList)(slot, mechanisms, count);
	uint32_t hidden = get(&control->hide_mechanism);
	if (rv == CKR_OK && mechanisms != NULL && hidden != 0) {
		ulong kept = 0;
		for (ulong i = 0; i < *count; i++)
			if (mechanisms[i] != hidden)
				mechanisms[kept++] = mechanisms[i];
		*count = kept;
	}
	LEAVE
}

static ulong f_OpenSession(ulong slot, ulong flags, void *application, void *notify, ulong *handle)
{
	ENTER(C_OpenSession)
	HOLD_GATE
	pthread_mutex_lock(&guard);
	uint32_t most = get(&control->max_sessions);
	struct session *s = NULL;
	for (size_t i = 0; s == NULL && i < sizeof sessions / sizeof *sessions; i++)
		if (sessions[i].handle == 0)
			s = &sessions[i];
	if (gone)
		rv = CKR_TOKEN_NOT_PRESENT;
	else if (s == NULL || (most != 0 && get(&control->open_sessions) >= most))
		rv = CKR_SESSION_COUNT;
	else
		rv = CALL(C_OpenSession)(slot, flags, application, notify, handle);
	if (rv == CKR_OK) {
		*s = (struct session){.handle = *handle, .used = now()};
		token_used = s->used;
		uint32_t open = __atomic_add_fetch(&control->open_sessions, 1, __ATOMIC_SEQ_CST);
		if (open > get(&control->most_sessions))
			set(&control->most_sessions, open);
	}
	pthread_mutex_unlock(&guard);
	LEAVE
}

static ulong f_CloseSession(ulong session)
{
	ENTER_SESSION(C_CloseSession, session)
	pthread_mutex_lock(&guard);
	rv = CALL(C_CloseSession)(session);
	struct session *s = find(session);
	if (s != NULL)
		forget(s);
	pthread_mutex_unlock(&guard);
	LEAVE
}

static ulong f_CloseAllSessions(ulong slot)
{
	ENTER(C_CloseAllSessions)
	pthread_rwlock_wrlock(&gate);
	pthread_mutex_lock(&guard);
	rv = CALL(C_CloseAllSessions)(slot);
	forget_all(); /* the tests use one slot */
	pthread_mutex_unlock(&guard);
	pthread_rwlock_unlock(&gate);
	LEAVE
}

static ulong f_GetSessionInfo(ulong session, void *info)
{
	ENTER_SESSION(C_GetSessionInfo, session)
	rv = CALL(C_GetSessionInfo)(session, info);
	LEAVE
}

/* context_login is CKU_CONTEXT_SPECIFIC as a card with always-authenticate has
 * it: for the one signature begun on the session, with the user's PIN. */
static ulong context_login(ulong session, const char *pin, ulong length)
{
	ulong rv = CKR_OPERATION_NOT_INITIALIZED;
	pthread_mutex_lock(&guard);
	struct session *s = find(session);
	if (s != NULL && s->signing && get(&control->always) != ONLY_TOLD) {
		rv = CKR_PIN_INCORRECT;
		if (length == user_pin_length && memcmp(pin, user_pin, length) == 0) {
			s->authenticated = 1;
			rv = CKR_OK;
		}
	}
	pthread_mutex_unlock(&guard);
	return rv;
}

static ulong f_Login(ulong session, ulong user, const char *pin, ulong length)
{
	ENTER_SESSION(C_Login, session)
	set(&control->pin_at[0], (uint32_t)(uintptr_t)pin);
	set(&control->pin_at[1], (uint32_t)((uintptr_t)pin >> 32));
	char typed[sizeof user_pin];
	if (pin == NULL && (get(&control->token_flags) & CKF_PROTECTED_AUTHENTICATION_PATH)) {
		pthread_mutex_lock(&guard); /* somebody types the right one on the token's keypad */
		memcpy(typed, user_pin, length = user_pin_length);
		pthread_mutex_unlock(&guard);
		pin = typed;
	}
	uint32_t tries = get(&control->pin_tries);
	if (tries != 0 && get(&control->pin_left) == 0)
		return CKR_PIN_LOCKED;
	if (user == CKU_CONTEXT_SPECIFIC && get(&control->always) != NEVER)
		rv = context_login(session, pin, length);
	else
		rv = CALL(C_Login)(session, user, pin, length);
	if (rv == CKR_OK && user == CKU_USER && length <= sizeof user_pin) {
		pthread_mutex_lock(&guard);
		memcpy(user_pin, pin, length);
		user_pin_length = length;
		pthread_mutex_unlock(&guard);
	}
	if (tries != 0 && rv == CKR_PIN_INCORRECT)
		take(&control->pin_left);
	else if (tries != 0 && rv == CKR_OK)
		set(&control->pin_left, tries);
	LEAVE
}

static ulong f_FindObjectsInit(ulong session, void *template, ulong count)
{
	ENTER_SESSION(C_FindObjectsInit, session)
	rv = CALL(C_FindObjectsInit)(session, template, count);
	pthread_mutex_lock(&guard);
	struct session *s = find(session);
	if (rv == CKR_OK && s != NULL && !s->searching) {
		s->searching = 1;
		__atomic_add_fetch(&control->open_searches, 1, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&guard);
	LEAVE
}

static ulong f_FindObjects(ulong session, ulong *objects, ulong most, ulong *count)
{
	ENTER_SESSION(C_FindObjects, session)
	rv = CALL(C_FindObjects)(session, objects, most, count);
	LEAVE
}

static ulong f_FindObjectsFinal(ulong session)
{
	ENTER_SESSION(C_FindObjectsFinal, session)
	rv = CALL(C_FindObjectsFinal)(session);
	pthread_mutex_lock(&guard);
	struct session *s = find(session);
	if (s != NULL && s->searching) {
		s->searching = 0;
		__atomic_sub_fetch(&control->open_searches, 1, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&guard);
	LEAVE
}

/* rewrite turns what the wrapped module tells of an attribute into what other
 * modules tell. It returns the new length. */
static ulong rewrite(ulong type, unsigned char *value, ulong length)
{
	static const struct {
		unsigned char oid[12];
		ulong length;
		const char *name;
	} curves[] = {
		{{6, 3, 0x2b, 0x65, 0x70}, 5, "edwards25519"},
		{{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}, 10, "secp256r1"},
		{{6, 5, 0x2b, 0x81, 4, 0, 0x22}, 7, "secp384r1"},
	};
	if (type == CKA_EC_PARAMS && get(&control->params) == PRINTABLE)
		for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
			if (length == curves[i].length && memcmp(value, curves[i].oid, length) == 0) {
				ulong n = strlen(curves[i].name);
				value[0] = 0x13; /* PrintableString */
				value[1] = (unsigned char)n;
				memcpy(value + 2, curves[i].name, n);
				return n + 2;
			}
	if (type == CKA_EC_POINT && get(&control->point) == RAW && length > 2 && value[0] == 4 && value[1] == length - 2) {
		memmove(value, value + 2, length - 2);
		return length - 2;
	}
	uint32_t always = get(&control->always);
	if (type == CKA_ALWAYS_AUTHENTICATE && length == 1 && (always == ALWAYS || always == ONLY_TOLD))
		value[0] = 1;
	return length;
}

static ulong f_GetAttributeValue(ulong session, ulong object, struct attribute *template, ulong count)
{
	ENTER_SESSION(C_GetAttributeValue, session)
	ulong type = count == 1 ? template->type : 0;
	if (type != CKA_EC_PARAMS && type != CKA_EC_POINT && type != CKA_ALWAYS_AUTHENTICATE) {
		rv = CALL(C_GetAttributeValue)(session, object, template, count);
		LEAVE
	}
	unsigned char buffer[512];
	struct attribute own = {type, buffer, sizeof buffer - 32};
	if ((rv = CALL(C_GetAttributeValue)(session, object, &own, 1)) != CKR_OK) {
		template->length = own.length;
		return rv;
	}
	own.length = rewrite(type, buffer, own.length);
	if (template->value != NULL) {
		if (template->length < own.length) {
			template->length = CK_UNAVAILABLE_INFORMATION;
			return CKR_BUFFER_TOO_SMALL;
		}
		memcpy(template->value, buffer, own.length);
	}
	template->length = own.length;
	LEAVE
}

static ulong f_SignInit(ulong session, void *mechanism, ulong key)
{
	ENTER_SESSION(C_SignInit, session)
	rv = CALL(C_SignInit)(session, mechanism, key);
	pthread_mutex_lock(&guard);
	struct session *s = find(session);
	if (rv == CKR_OK && s != NULL) {
		s->signing = 1;
		s->authenticated = 0;
	}
	pthread_mutex_unlock(&guard);
	LEAVE
}

/* may_sign refuses a signature that the PIN was not given for, and ends it. */
static int may_sign(ulong session, int last)
{
	uint32_t always = get(&control->always);
	pthread_mutex_lock(&guard);
	struct session *s = find(session);
	int may = s == NULL || s->authenticated || always == NEVER || always == ONLY_TOLD;
	if (s != NULL && (last || !may))
		s->signing = s->authenticated = 0;
	pthread_mutex_unlock(&guard);
	return may;
}

static ulong f_Sign(ulong session, unsigned char *data, ulong length, unsigned char *sig, ulong *sig_length)
{
	ENTER_SESSION(C_Sign, session)
	unsigned char own[1024];
	ulong n = sizeof own;
	if (!may_sign(session, sig != NULL)) {
		CALL(C_Sign)(session, data, length, own, &n); /* ends the operation */
		return CKR_USER_NOT_LOGGED_IN;
	}
	uint32_t fault = get(&control->signature);
	if (sig == NULL) {
		rv = CALL(C_Sign)(session, data, length, NULL, sig_length);
		if (rv == CKR_OK && fault == LONG)
			*sig_length += 1;
		LEAVE
	}
	if ((rv = CALL(C_Sign)(session, data, length, own, &n)) != CKR_OK)
		return rv;
	own[n] = 0;
	if (fault == CORRUPT)
		own[n - 1] ^= 1;
	n = fault == SHORT ? n - 1 : fault == LONG ? n + 1 : fault == EMPTY ? 0 : n;
	if (*sig_length < n)
		return CKR_BUFFER_TOO_SMALL;
	memcpy(sig, own, n);
	*sig_length = n;
	LEAVE
}

static ulong f_GenerateRandom(ulong session, unsigned char *data, ulong length)
{
	ENTER_SESSION(C_GenerateRandom, session)
	rv = CALL(C_GenerateRandom)(session, data, length);
	LEAVE
}

/* f_WaitForSlotEvent tells that the token came or went since the last time. */
static ulong f_WaitForSlotEvent(ulong flags, ulong *slot, void *reserved)
{
	static int was;
	(void)reserved;
	ENTER(C_WaitForSlotEvent)
	for (;; pause_ms(1)) {
		int is = settle();
		ulong slots[64], n = 64;
		if (is != was) {
			was = is;
			if ((rv = CALL(C_GetSlotList)(1, slots, &n)) == CKR_OK && n > 0)
				*slot = slots[0];
			LEAVE
		}
		if (flags & CKF_DONT_BLOCK)
			return CKR_NO_EVENT;
	}
}

static void *beside(const char *path, const char *suffix, char *name, size_t size)
{
	snprintf(name, size, "%s%s", path, suffix);
	return name;
}

static int load(void)
{
	Dl_info self;
	char name[4096], module[4096] = "";
	if (!dladdr((void *)load, &self))
		return 0;
	FILE *file = fopen(beside(self.dli_fname, ".module", name, sizeof name), "r");
	if (file == NULL)
		return 0;
	char *line = fgets(module, sizeof module, file);
	fclose(file);
	int fd = open(beside(self.dli_fname, ".control", name, sizeof name), O_RDWR | O_CLOEXEC);
	if (line == NULL || fd < 0)
		return 0;
	void *block = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	void *library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
	if (block == MAP_FAILED || library == NULL)
		return 0;
	control = block;
	ulong (*get_list)(struct function_list **) = (ulong(*)(struct function_list **))dlsym(library, "C_GetFunctionList");
	return control->size == sizeof *control && get_list != NULL && get_list(&real) == CKR_OK;
}

ulong C_GetFunctionList(struct function_list **out)
{
	pthread_mutex_lock(&guard);
	int loaded = real != NULL || load();
	pthread_mutex_unlock(&guard);
	if (!loaded)
		return CKR_GENERAL_ERROR;
	list = *real;
	list.C_Initialize = f_Initialize;
	list.C_Finalize = f_Finalize;
	list.C_GetFunctionList = C_GetFunctionList;
	list.C_GetSlotList = f_GetSlotList;
	list.C_GetTokenInfo = f_GetTokenInfo;
	list.C_GetMechanismList = f_GetMechanismList;
	list.C_OpenSession = f_OpenSession;
	list.C_CloseSession = f_CloseSession;
	list.C_CloseAllSessions = f_CloseAllSessions;
	list.C_GetSessionInfo = f_GetSessionInfo;
	list.C_Login = f_Login;
	list.C_FindObjectsInit = f_FindObjectsInit;
	list.C_FindObjects = f_FindObjects;
	list.C_FindObjectsFinal = f_FindObjectsFinal;
	list.C_GetAttributeValue = f_GetAttributeValue;
	list.C_SignInit = f_SignInit;
	list.C_Sign = f_Sign;
	list.C_GenerateRandom = f_GenerateRandom;
	list.C_WaitForSlotEvent = f_WaitForSlotEvent;
	*out = &list;
	return CKR_OK;
}
