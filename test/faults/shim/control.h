/* The control block: a file of this layout beside the module (its path and
 * ".control"), mapped by the module and by the test at once. faults.go has the
 * same layout in Go; both begin with its size, so that they cannot part. */
#include <stdint.h>

enum { MAX_RULES = 32, NAME_LENGTH = 24 };

enum action { RETURN = 0, HANG = 1, CRASH = 2, DELAY = 3, RETURN_AFTER = 4, REPLACE_CODE = 5 };

struct rule {
	char name[NAME_LENGTH]; /* of the function */
	uint32_t calls;         /* counted, whatever happens */
	uint32_t skip;          /* so many calls more pass first */
	uint32_t times;         /* so many calls more fail; FOR_EVER is no end */
	uint32_t action;
	uint32_t code; /* CKR_* of RETURN, RETURN_AFTER, REPLACE_CODE */
	uint32_t millis; /* of DELAY */
};

#define FOR_EVER 0xffffffffu

enum absence { PRESENT = 0, ABSENT = 1, ABSENT_UNTIL_INITIALIZE = 2 };
enum always { NEVER = 0, ALWAYS = 1, ALWAYS_UNTOLD = 2, ONLY_TOLD = 3 };
enum idle { IDLE_SESSION = 0, IDLE_TOKEN = 1 };
enum signature { SOUND = 0, CORRUPT = 1, SHORT = 2, LONG = 3, EMPTY = 4 };
enum point { WRAPPED = 0, RAW = 1 };
enum params { AS_STORED = 0, PRINTABLE = 1 };

struct control {
	uint32_t size;
	uint32_t absent;       /* enum absence */
	uint32_t token_flags;  /* set in CK_TOKEN_INFO.flags besides its own */
	uint32_t pin_tries;    /* 0: as the wrapped token; else wrong PINs until the lock */
	uint32_t pin_left;     /* of pin_tries */
	uint32_t always;       /* enum always */
	uint32_t max_sessions; /* 0: no cap */
	uint32_t hide_cap;     /* CK_TOKEN_INFO does not tell max_sessions */
	uint32_t idle_millis;  /* 0: sessions do not expire */
	uint32_t idle_scope;   /* enum idle */
	uint32_t signature;    /* enum signature */
	uint32_t point;        /* enum point */
	uint32_t params;       /* enum params */
	uint32_t hide_mechanism; /* number, 0 for none */
	uint32_t open_sessions;  /* now */
	uint32_t most_sessions;  /* ever at once */
	uint32_t open_searches;  /* FindObjectsInit without FindObjectsFinal */
	uint32_t clock_ahead;    /* seconds that the token's clock is ahead; 0: it has none */
	uint32_t hide_final_try; /* CK_TOKEN_INFO.flags tell of a locked PIN only when it is */
	uint32_t pin_at[2];      /* low and high half of the address of the PIN that was sent last */
	struct rule rules[MAX_RULES];
};
