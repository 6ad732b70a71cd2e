/* As much of PKCS #11 v2.40 as shim.c uses, for systems where long and
 * pointers have 64 bits. */
typedef unsigned long ulong;

#define CKR_OK 0x0ul
#define CKR_GENERAL_ERROR 0x5ul
#define CKR_NO_EVENT 0x8ul
#define CKR_DEVICE_REMOVED 0x32ul
#define CKR_OPERATION_NOT_INITIALIZED 0x91ul
#define CKR_PIN_INCORRECT 0xa0ul
#define CKR_PIN_LOCKED 0xa4ul
#define CKR_SESSION_COUNT 0xb1ul
#define CKR_SESSION_HANDLE_INVALID 0xb3ul
#define CKR_TOKEN_NOT_PRESENT 0xe0ul
#define CKR_USER_NOT_LOGGED_IN 0x101ul
#define CKR_BUFFER_TOO_SMALL 0x150ul

#define CKF_DONT_BLOCK 0x1ul
#define CKF_CLOCK_ON_TOKEN 0x40ul
#define CKF_PROTECTED_AUTHENTICATION_PATH 0x100ul
#define CKF_USER_PIN_COUNT_LOW 0x10000ul
#define CKF_USER_PIN_FINAL_TRY 0x20000ul
#define CKF_USER_PIN_LOCKED 0x40000ul

#define CKU_USER 1ul
#define CKU_CONTEXT_SPECIFIC 2ul

#define CKA_EC_PARAMS 0x180ul
#define CKA_EC_POINT 0x181ul
#define CKA_ALWAYS_AUTHENTICATE 0x202ul
#define CK_UNAVAILABLE_INFORMATION (~0ul)

struct attribute {
	ulong type;
	void *value;
	ulong length;
};

struct token_info {
	char label[32], manufacturer[32], model[16], serial[16];
	ulong flags, max_sessions, sessions, max_rw_sessions, rw_sessions, max_pin, min_pin;
	ulong public_total, public_free, private_total, private_free;
	unsigned char hardware[2], firmware[2];
	char utc_time[16];
};

#define CALL(name) real->name

typedef void (*other)(void);

/* In the standard's order; other are functions that are passed on untouched. */
struct function_list {
	unsigned char version[2];
	ulong (*C_Initialize)(void *);
	ulong (*C_Finalize)(void *);
	other C_GetInfo;
	ulong (*C_GetFunctionList)(struct function_list **);
	ulong (*C_GetSlotList)(unsigned char, ulong *, ulong *);
	other C_GetSlotInfo;
	ulong (*C_GetTokenInfo)(ulong, struct token_info *);
	ulong (*C_GetMechanismList)(ulong, ulong *, ulong *);
	other C_GetMechanismInfo, C_InitToken, C_InitPIN, C_SetPIN;
	ulong (*C_OpenSession)(ulong, ulong, void *, void *, ulong *);
	ulong (*C_CloseSession)(ulong);
	ulong (*C_CloseAllSessions)(ulong);
	ulong (*C_GetSessionInfo)(ulong, void *);
	other C_GetOperationState, C_SetOperationState;
	ulong (*C_Login)(ulong, ulong, const char *, ulong);
	other C_Logout, C_CreateObject, C_CopyObject, C_DestroyObject, C_GetObjectSize;
	ulong (*C_GetAttributeValue)(ulong, ulong, struct attribute *, ulong);
	other C_SetAttributeValue;
	ulong (*C_FindObjectsInit)(ulong, void *, ulong);
	ulong (*C_FindObjects)(ulong, ulong *, ulong, ulong *);
	ulong (*C_FindObjectsFinal)(ulong);
	other C_EncryptInit, C_Encrypt, C_EncryptUpdate, C_EncryptFinal;
	other C_DecryptInit, C_Decrypt, C_DecryptUpdate, C_DecryptFinal;
	other C_DigestInit, C_Digest, C_DigestUpdate, C_DigestKey, C_DigestFinal;
	ulong (*C_SignInit)(ulong, void *, ulong);
	ulong (*C_Sign)(ulong, unsigned char *, ulong, unsigned char *, ulong *);
	other C_SignUpdate, C_SignFinal, C_SignRecoverInit, C_SignRecover;
	other C_VerifyInit, C_Verify, C_VerifyUpdate, C_VerifyFinal, C_VerifyRecoverInit, C_VerifyRecover;
	other C_DigestEncryptUpdate, C_DecryptDigestUpdate, C_SignEncryptUpdate, C_DecryptVerifyUpdate;
	other C_GenerateKey, C_GenerateKeyPair, C_WrapKey, C_UnwrapKey, C_DeriveKey, C_SeedRandom;
	ulong (*C_GenerateRandom)(ulong, unsigned char *, ulong);
	other C_GetFunctionStatus, C_CancelFunction;
	ulong (*C_WaitForSlotEvent)(ulong, ulong *, void *);
};
