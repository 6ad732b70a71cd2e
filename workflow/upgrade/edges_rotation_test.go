package upgrade_test

import (
	"slices"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// everybody are the approvers of version 1.
var everybody = []string{"divlead-1", "divlead-2", "ryan", "sec-eng", "tech-lead"}

// rotated is a quorum under a registry whose version 2 differs by edit.
func rotated(name string, want failure.Class, edit func(*keyregistry.Document), signers ...string) forgery {
	return forgery{"rotation: " + name, quorumFile, func(w *world) {
		w.rotations = []rotation{{edit: edit, signers: signers}}
	}, want}
}

// rotatedTwice has two further versions; everybody signs the first.
func rotatedTwice(name string, want failure.Class, first, second func(*keyregistry.Document), signers ...string) forgery {
	return forgery{"rotation: " + name, quorumFile, func(w *world) {
		w.rotations = []rotation{{edit: first, signers: append([]string{"ryan-2"}, everybody...)}, {edit: second, signers: signers}}
	}, want}
}

func rotationEdges() []forgery {
	none := func(*keyregistry.Document) {}
	opsIsApprover := func(d *keyregistry.Document) {
		d.Requestors = []keyregistry.Person{}
		old := person(d, "divlead-2")
		retire(d, old.Keys[0].KeyID, old.ID)
		*old = keyregistry.Approver{ID: "ops", Name: "Operations", Role: keyregistry.DivisionLead, Keys: []keyregistry.Key{entryOf("ops")}}
		slices.SortFunc(d.Approvers, func(a, b keyregistry.Approver) int {
			if a.ID < b.ID {
				return -1
			}
			return 1
		})
	}
	moved := func(d *keyregistry.Document) {
		d.Kernel.Records = append(d.Kernel.Records, d.Kernel.Audit...)
		d.Kernel.Audit = []keyregistry.Key{entryOf("audit-2")}
	}
	withoutRyan := func(name string, want failure.Class, edit func(*keyregistry.Document), signers ...string) forgery {
		return forgery{"rotation: " + name, quorumFile, func(w *world) {
			w.approvers = []string{"divlead-1", "sec-eng", "tech-lead"}
			w.rotations = []rotation{{edit: edit, signers: signers}}
		}, want}
	}
	edit := func(f func(k *keyregistry.Key)) func(*keyregistry.Document) {
		return func(d *keyregistry.Document) { f(&person(d, "tech-lead").Keys[0]) }
	}
	const threshold, reused, broken, invalid = failure.RegistryThresholdNotMet, failure.RegistryKeyReused, failure.RegistryChainBroken, failure.RegistryInvalid
	return append(rotationFiles(), []forgery{
		rotated("three sign", valid, none, "divlead-1", "ryan", "sec-eng"),
		rotated("two sign", threshold, none, "divlead-1", "ryan"),
		rotated("all five sign", valid, none, everybody...),
		rotated("a requestor signs as well", threshold, none, "divlead-1", "ryan", "sec-eng", "ops"),
		rotated("the Kernel signs as well", threshold, none, "divlead-1", "ryan", "sec-eng", "records"),
		rotated("a stranger signs as well", threshold, none, "divlead-1", "ryan", "sec-eng", "outsider"),
		withoutRyan("a new key proves possession", valid, swapKey("ryan", "ryan-2"), "divlead-1", "sec-eng", "tech-lead", "ryan-2"),
		rotated("a new key does not sign", threshold, swapKey("ryan", "ryan-2"), "divlead-1", "sec-eng", "tech-lead"),
		rotated("the leaving key counts for the old version only", threshold, swapKey("ryan", "ryan-2"), "divlead-1", "ryan", "ryan-2"),
		withoutRyan("old and new key are one person", valid, swapKey("ryan", "ryan-2"), "divlead-1", "sec-eng", "ryan", "ryan-2"),
		rotated("a key leaves unlisted", reused, func(d *keyregistry.Document) { person(d, "ryan").Keys = []keyregistry.Key{entryOf("ryan-2")} }, "divlead-1", "sec-eng", "tech-lead", "ryan-2"),
		rotated("a key leaves under another's name", reused, func(d *keyregistry.Document) {
			swapKey("ryan", "ryan-2")(d)
			d.Retired[0].Holder = "sec-eng"
		}, "divlead-1", "sec-eng", "tech-lead", "ryan-2"),
		rotatedTwice("a retired key returns", reused, swapKey("ryan", "ryan-2"), func(d *keyregistry.Document) {
			person(d, "ryan").Keys = []keyregistry.Key{entryOf("ryan")}
			retire(d, keyID("ryan-2"), "ryan")
		}, everybody...),
		rotatedTwice("a retired key is forgotten", reused, swapKey("ryan", "ryan-2"), func(d *keyregistry.Document) { d.Retired = []keyregistry.RetiredKey{} },
			"divlead-1", "sec-eng", "tech-lead"),
		rotatedTwice("a retired key changes its holder", reused, swapKey("ryan", "ryan-2"), func(d *keyregistry.Document) { d.Retired[0].Holder = "divlead-1" },
			"divlead-1", "sec-eng", "tech-lead"),
		rotated("a kept key with another validity", valid, edit(func(k *keyregistry.Key) { k.NotAfter = k.NotAfter.Add(86400) }), "divlead-1", "ryan", "sec-eng"),
		rotated("a kept key with another origin", reused, edit(func(k *keyregistry.Key) { k.Origin = keyregistry.OriginPKCS11 }), "divlead-1", "ryan", "sec-eng"),
		rotated("a kept RSA key with another algorithm", reused, func(d *keyregistry.Document) { person(d, "divlead-1").Keys[0].Algorithm = "rsa-pkcs1-sha256" }, "divlead-2", "ryan", "sec-eng"),
		rotated("two persons change keys", reused, func(d *keyregistry.Document) {
			a, b := person(d, "ryan"), person(d, "tech-lead")
			a.Keys, b.Keys = b.Keys, a.Keys
		}, everybody...),
		rotated("a record key becomes an audit key, and is no Ed25519 key", invalid, func(d *keyregistry.Document) {
			d.Kernel.Audit = append(d.Kernel.Audit, d.Kernel.Records...)
			d.Kernel.Records = []keyregistry.Key{entryOf("ryan-2")}
		}, everybody...),
		rotated("the checkpoint by an audit key that moved to records", failure.AuditProofInvalid, moved, "divlead-1", "ryan", "sec-eng"),
		{"rotation: an audit key moves to records, another signs checkpoints", quorumFile, func(w *world) {
			w.rotations = []rotation{{edit: moved, signers: everybody}}
			w.signAs["audit"] = "audit-2"
		}, valid},
		{"rotation: the moved key signs the record", quorumFile, func(w *world) {
			w.rotations = []rotation{{edit: moved, signers: everybody}}
			w.signAs["audit"], w.signAs["records"] = "audit-2", "audit"
		}, valid},
		{"rotation: the moved key signs the record under the version before", quorumFile, func(w *world) {
			w.rotations = []rotation{{edit: moved, signers: everybody}}
			w.registered = func() { w.inForce = w.root }
			w.signAs["audit"], w.signAs["records"] = "audit-2", "audit"
		}, failure.KernelSignatureInvalid},
		rotated("a requestor becomes an approver and signs as a new one", valid, opsIsApprover, "divlead-1", "ryan", "sec-eng", "ops"),
		rotated("a requestor becomes an approver and does not sign", threshold, opsIsApprover, "divlead-1", "ryan", "sec-eng"),
		rotated("a requestor who becomes an approver does not count for the old version", threshold, opsIsApprover, "divlead-1", "ryan", "ops"),
		rotated("a requestor's key becomes another approver's", reused, func(d *keyregistry.Document) {
			d.Requestors = []keyregistry.Person{}
			p := person(d, "ryan")
			retire(d, p.Keys[0].KeyID, "ryan")
			p.Keys = []keyregistry.Key{entryOf("ops")}
		}, "divlead-1", "sec-eng", "tech-lead", "ops"),
		rotated("a version left out", broken, func(d *keyregistry.Document) { d.Version++ }, everybody...),
		rotated("another previous", broken, func(d *keyregistry.Document) { d.Previous = &policy }, everybody...),
		rotated("no previous", invalid, func(d *keyregistry.Document) { d.Previous = nil }, everybody...),
		rotated("issued earlier", broken, func(d *keyregistry.Document) { d.IssuedAt = issued.Add(-1) }, everybody...),
		rotated("issued in the same second", valid, func(d *keyregistry.Document) { d.IssuedAt = issued }, everybody...),
		rotated("of another Kernel", broken, func(d *keyregistry.Document) { d.KernelID = "other" }, everybody...),
		rotated("issued after the decision", failure.TimeInvalid, func(d *keyregistry.Document) { d.IssuedAt = decided.Add(1) }, everybody...),
		rotated("a signer's key ended, in the new version", failure.KeyOutsideValidity, edit(func(k *keyregistry.Key) { k.NotAfter = issued }), everybody...),
		rotated("two superadmins", invalid, func(d *keyregistry.Document) { person(d, "sec-eng").Role = keyregistry.SuperAdmin }, everybody...),
		rotated("four approvers", invalid, func(d *keyregistry.Document) {
			retire(d, d.Approvers[0].Keys[0].KeyID, d.Approvers[0].ID)
			d.Approvers = d.Approvers[1:]
		}, everybody[1:]...),
		rotated("approvers unsorted", invalid, func(d *keyregistry.Document) { slices.Reverse(d.Approvers) }, everybody...),
		rotated("TTL of an hour less a second, no test registry", failure.RegistryInvalid, func(d *keyregistry.Document) { d.Test = false }, everybody...),
		rotated("TTL of 0", failure.FieldInvalid, func(d *keyregistry.Document) { d.Rules.ApprovalTTLSeconds = 0 }, everybody...),
		rotated("TTL of 30 days and a second", failure.FieldInvalid, func(d *keyregistry.Document) { d.Rules.ApprovalTTLSeconds = 2592001 }, everybody...),
		rotated("window of 7 days and a second", failure.FieldInvalid, func(d *keyregistry.Document) { d.Rules.RatificationWindowSeconds = 604801 }, everybody...),
		rotated("four non-browser approvals", failure.FieldInvalid, func(d *keyregistry.Document) { d.Rules.MinNonBrowserApprovals = 4 }, everybody...),
	}...)
}

// rotationFiles are chains in which more than the document is wrong.
func rotationFiles() []forgery {
	entry := func(name string, want failure.Class, f func(*keyregistry.SignedDocument)) forgery {
		return forgery{"rotation: " + name, quorumFile, func(w *world) {
			w.rotations = []rotation{{signers: everybody, entry: f}}
		}, want}
	}
	return []forgery{
		entry("one signature twice", failure.EnvelopeMalformed, func(e *keyregistry.SignedDocument) {
			e.Statement.Signatures = append(e.Statement.Signatures, e.Statement.Signatures[0])
		}),
		entry("one of five signatures is wrong", failure.SignatureInvalid, func(e *keyregistry.SignedDocument) {
			e.Statement.Signatures[0].Sig[30] ^= 1
		}),
		entry("no signature", failure.EnvelopeMalformed, func(e *keyregistry.SignedDocument) { e.Statement.Signatures = []envelope.Signature{} }),
		entry("statement of another type", failure.WrongPayloadType, func(e *keyregistry.SignedDocument) { e.Statement.PayloadType = envelope.TypeApproval }),
		{"rotation: the chain begins with version 2", quorumFile, func(w *world) {
			w.rotations = []rotation{{signers: everybody}}
			w.file = func(f *upgrade.File) { f.Registry = f.Registry[1:] }
		}, failure.RegistryRootMismatch},
		{"rotation: records under version 1, decided under 2", quorumFile, func(w *world) {
			w.rotations = []rotation{{signers: everybody}}
			w.approval = func(id string, a *upgrade.Approval) {
				if id == "ryan" {
					a.RegistryDigest = w.root
				}
			}
		}, failure.BindingMismatch},
		{"rotation: decided under version 1, version 2 is there", quorumFile, func(w *world) {
			w.rotations = []rotation{{signers: everybody}}
			w.registered = func() { w.inForce = w.root }
		}, valid},
		{"rotation: the old version's non-browser minimum", quorumFile, func(w *world) {
			inBrowser(2, "ryan", "sec-eng")(w)
			w.rotations = []rotation{{signers: []string{"divlead-1", "ryan", "sec-eng"}, edit: func(d *keyregistry.Document) { d.Rules.MinNonBrowserApprovals = 0 }}}
		}, failure.RegistryThresholdNotMet},
		{"rotation: the new version's non-browser minimum does not apply yet", quorumFile, func(w *world) {
			inBrowser(0, "ryan", "sec-eng")(w)
			w.rotations = []rotation{{signers: []string{"divlead-1", "ryan", "sec-eng"}, edit: func(d *keyregistry.Document) { d.Rules.MinNonBrowserApprovals = 1 }}}
		}, valid},
		{"rotation: a retired key approves", quorumFile, func(w *world) {
			w.rotations = []rotation{{signers: append([]string{"ryan-2"}, everybody...), edit: swapKey("ryan", "ryan-2")}}
		}, failure.KeyUnknown},
		{"rotation: ratified under a newer registry", ratifiedFile(60), func(w *world) {
			w.rotations = []rotation{{signers: everybody}}
			newer := envelope.Digest{}
			w.registered = func() { newer, w.inForce = w.inForce, w.root }
			w.ratifying = func() { w.inForce = newer }
		}, valid},
	}
}
