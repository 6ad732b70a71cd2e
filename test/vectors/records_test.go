package vectors_test

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/keyregistry/registrytest"
	"github.com/kernelgate/kernelgate/signer"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

func newKey(a signer.Algorithm) signer.Signer { return registrytest.Key(a) }

// manifestPayload is canonical; keyId is 64 times a.
const manifestPayload = `{"baseRevision":"none","impact":{"components":["web"],"cost":{"currency":"EUR","minorUnits":9007199254740991},"downtime":"none"},"kernelId":"k",` +
	`"keyId":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","patchHash":"sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",` +
	`"preconditions":{"approvals":3,"tests":["unit"]},"proposedBy":"ryan","rationale":"“why” \n\t é","target":{"manifestId":"m","name":"web"},` +
	`"timestamp":"2026-06-01T00:00:00Z","type":"code","upgradeId":"01234567-89ab-cdef-0123-456789abcdef"}`

// manifests are canonical payloads (PROTOCOL section 2) by the example of one
// record; only its form is judged, not its signature.
func manifests() []signed {
	v := func(name, payload, expect string) signed {
		env := envelope.Envelope{Payload: []byte(payload), PayloadType: envelope.TypeManifest, Signatures: []envelope.Signature{{KeyID: envelope.KeyID(strings.Repeat("a", 64)), Sig: []byte{1}}}}
		return signed{Name: name, Input: hex.EncodeToString(env.Bytes()), Expect: expect}
	}
	edit := func(name, old, new string, expect failure.Class) signed {
		if !strings.Contains(manifestPayload, old) {
			panic(old)
		}
		if expect == "" {
			expect = "ok"
		}
		return v(name, strings.Replace(manifestPayload, old, new, 1), string(expect))
	}
	const malformed, canonical, field = failure.PayloadMalformed, failure.PayloadNotCanonical, failure.FieldInvalid
	big := strings.Repeat("x", 4000)
	return []signed{
		v("as it should be", manifestPayload, "ok"), v("trailing newline", manifestPayload+"\n", string(canonical)), v("BOM", "\ufeff"+manifestPayload, string(malformed)),
		v("two values", manifestPayload+"{}", string(malformed)), v("array", "[]", string(malformed)), v("empty", "", string(malformed)),
		edit("white space", `:3,`, `: 3,`, canonical), edit("members unsorted", `"name":"web"}`, `"manifestID":"m"}`, canonical),
		edit("duplicate name", `"baseRevision":"none"`, `"baseRevision":"none","baseRevision":"none"`, malformed),
		edit("duplicate name, escaped", `"baseRevision":"none"`, `"\u0062aseRevision":"none","baseRevision":"none"`, malformed),
		edit("unknown member", `"type":`, `"typf":1,"type":`, canonical), edit("unknown member, sorted", `"type":"code"`, `"type":"code","typf":1`, malformed),
		edit("other letter case", `"kernelId"`, `"kernelID"`, malformed), edit("escape that JCS does not write", `é`, `\u00e9`, canonical), edit("solidus escaped", `“why”`, `\/`, canonical),
		edit("null", `"none","impact"`, `null,"impact"`, malformed), edit("lone surrogate", `é`, `\ud800`, malformed), edit("bad UTF-8", `é`, "\xff", malformed),
		edit("3.0", `:3,`, `:3.0,`, canonical), edit("3e0", `:3,`, `:3e0,`, canonical), edit("03", `:3,`, `:03,`, malformed), edit("-0", `:3,`, `:-0,`, canonical),
		edit("negative", `:9007199254740991`, `:-1`, field), edit("2^53", `:9007199254740991`, `:9007199254740992`, field), edit("2^53+1, which rounds", `:9007199254740991`, `:9007199254740993`, canonical),
		edit("a half", `:9007199254740991`, `:0.5`, field), edit("number as text", `:3,`, `:"3",`, malformed),
		edit("a member is missing", `"kernelId":"k",`, ``, malformed), edit("four approvals", `:3,`, `:4,`, field), edit("no test", `["unit"]`, `[]`, ""), edit("a test twice", `["unit"]`, `["unit","unit"]`, field),
		edit("a control character", `é`, `\u0001`, field), edit("DEL", `é`, "\u007f", field), edit("an override", `é`, "\u202e", field),
		edit("rationale of 4000", `“why” \n\t é`, big, ""), edit("rationale of 4001", `“why” \n\t é`, big+"x", field), edit("rationale empty", `“why” \n\t é`, ``, field),
		edit("another keyId", strings.Repeat("a", 64), strings.Repeat("b", 64), failure.BindingMismatch), edit("unknown type", `"code"`, `"config"`, field),
		edit("rollback of nothing", `"code"`, `"rollback"`, field), edit("leap second", `00:00:00Z`, `23:59:60Z`, field), edit("cost left out", `"cost":{"currency":"EUR","minorUnits":9007199254740991},`, ``, ""),
	}
}

var rootTime = must(envelope.ParseTime("2026-06-01T00:00:00Z"))

// chains are registry documents and their succession (PROTOCOL section 5);
// the input is the canonical array of registry entries.
func chains() []signed {
	f := registrytest.New(rootTime)
	first := f.Entries[0]
	all := f.Approvers()
	v := func(name string, expect failure.Class, entries ...keyregistry.SignedDocument) signed {
		if expect == "" {
			expect = "ok"
		}
		return signed{Name: name, Root: f.Root.String(), Input: hex.EncodeToString(must(envelope.Canonical(entries))), Expect: string(expect)}
	}
	next := func(edit func(*keyregistry.Document), signers ...signer.Signer) keyregistry.SignedDocument {
		doc := new(keyregistry.Document)
		if err := envelope.DecodeCanonical(first.Document, keyregistry.MaxDocument, doc); err != nil {
			panic(err)
		}
		doc.Version, doc.Previous, doc.IssuedAt = 2, &f.Root, rootTime.Add(60)
		if edit != nil {
			edit(doc)
		}
		return registrytest.Entry(doc, signers...)
	}
	newcomer := newKey(signer.ECDSAP256SHA256)
	swap := func(d *keyregistry.Document) {
		old := d.Approvers[2].Keys[0]
		d.Retired = []keyregistry.RetiredKey{{KeyID: old.KeyID, Holder: d.Approvers[2].ID}}
		d.Approvers[2].Keys = []keyregistry.Key{registrytest.KeyEntry(newcomer, rootTime)}
	}
	unlisted := func(d *keyregistry.Document) { swap(d); d.Retired = []keyregistry.RetiredKey{} }
	twice := first
	twice.Statement.Signatures = append(slices.Clone(twice.Statement.Signatures), twice.Statement.Signatures[0])
	four := first
	four.Statement.Signatures = four.Statement.Signatures[:4]
	spaced := first
	spaced.Document = append(slices.Clone(spaced.Document), '\n')
	const threshold = failure.RegistryThresholdNotMet
	return []signed{
		v("version 1", "", first), v("none", failure.RegistryRootMismatch), v("version 1 signed by four", threshold, four),
		v("one key twice", failure.EnvelopeMalformed, twice), v("document not canonical", failure.PayloadNotCanonical, spaced),
		v("version 1 twice", failure.RegistryChainBroken, first, first), v("begins with version 2", failure.RegistryRootMismatch, next(nil, all...)),
		v("version 2 by three", "", first, next(nil, all[:3]...)), v("version 2 by two", threshold, first, next(nil, all[:2]...)),
		v("version 2 by three and a requestor", threshold, first, next(nil, append(slices.Clone(all[:3]), f.Signers["ops"])...)),
		v("a new key that signs", "", first, next(swap, all[0], all[1], all[3], newcomer)), v("a new key that does not", threshold, first, next(swap, all[0], all[1], all[3])),
		v("a key that is not retired", failure.RegistryKeyReused, first, next(unlisted, all[0], all[1], all[3], newcomer)),
		v("version 3 after 1", failure.RegistryChainBroken, first, next(func(d *keyregistry.Document) { d.Version = 3 }, all...)),
		v("another previous", failure.RegistryChainBroken, first, next(func(d *keyregistry.Document) { d.Previous = &envelope.Digest{} }, all...)),
		v("issued earlier", failure.RegistryChainBroken, first, next(func(d *keyregistry.Document) { d.IssuedAt = rootTime.Add(-1) }, all...)),
		v("kept key, other origin", failure.RegistryKeyReused, first, next(func(d *keyregistry.Document) { d.Approvers[0].Keys[0].Origin = "pkcs11" }, all...)),
		v("two superadmins", failure.RegistryInvalid, first, next(func(d *keyregistry.Document) { d.Approvers[0].Role = "superadmin" }, all...)),
		v("key in a file, no test registry", failure.RegistryInvalid, first, next(func(d *keyregistry.Document) { d.Test = false }, all...)),
		v("one key under two names", failure.RegistryKeyReused, first, next(func(d *keyregistry.Document) { d.Approvers[0].Keys = d.Approvers[1].Keys }, all...)),
		v("signers' keys past their end", failure.KeyOutsideValidity, first, next(func(d *keyregistry.Document) { d.IssuedAt = rootTime.Add(registrytest.Validity + 1) }, all...)),
	}
}
