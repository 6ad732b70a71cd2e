// Package pkcs11 signs with keys in PKCS#11 tokens: HSMs, smartcards and
// SoftHSM2. A key is named by an RFC 7512 URI (ParseURI) and opened with Open.
//
// What the package takes care of, because tokens fail in these ways:
//
//   - Sessions are capped by configuration and by the token; waits end with the
//     caller's context and the queue is bounded (signer.ErrBusy). One session
//     that lives as long as the signer holds the login.
//   - Handles belong to a generation (one Initialize, one login) and are found
//     again after it. A failed signature is tried again on a fresh session,
//     then after a new login, then after Finalize and Initialize; so a token
//     that went away and came back signs again without a restart.
//   - A PIN that the token called wrong is not sent again by itself, and none is
//     sent to a token that says that one try is left or that it is locked.
//   - A call into a module cannot be cancelled. Sign and Open return by their
//     context's deadline all the same (ErrStuck), and Options.OnStuck tells a
//     process that holds nothing else that it is time to end.
//   - Every signature is verified before the caller sees it.
package pkcs11
