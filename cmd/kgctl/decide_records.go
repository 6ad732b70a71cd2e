package main

import (
	"errors"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

func approvalOf(notes string, preapprove bool) composer {
	return func(r *reading, s *session, who envelope.ID, key envelope.KeyID, now envelope.Time) (string, any) {
		m := r.manifest
		return envelope.TypeApproval, &upgrade.Approval{ApproverID: who, ApprovalTs: now, KernelID: m.KernelID, KeyID: key, ManifestDigest: r.digest,
			Notes: notes, PatchHash: m.PatchHash, RegistryDigest: s.registry().Digest(), RollbackPreapproved: preapprove, UpgradeID: m.UpgradeID}
	}
}

func rejectionOf(reason string) composer {
	return func(r *reading, s *session, who envelope.ID, key envelope.KeyID, now envelope.Time) (string, any) {
		m := r.manifest
		return envelope.TypeRejection, &upgrade.Rejection{ApproverID: who, KernelID: m.KernelID, KeyID: key, ManifestDigest: r.digest,
			Reason: reason, RegistryDigest: s.registry().Digest(), RejectionTs: now, UpgradeID: m.UpgradeID}
	}
}

func testRequestOf(tests []string, notes string) composer {
	return func(r *reading, s *session, who envelope.ID, key envelope.KeyID, now envelope.Time) (string, any) {
		m := r.manifest
		return envelope.TypeTestRequest, &upgrade.TestRequest{ApproverID: who, KernelID: m.KernelID, KeyID: key, ManifestDigest: r.digest,
			Notes: notes, RegistryDigest: s.registry().Digest(), RequestTs: now, Tests: tests, UpgradeID: m.UpgradeID}
	}
}

// checkTests holds the names of asked tests to PROTOCOL section 6.
func checkTests(tests []string) error {
	if len(tests) < 1 || len(tests) > 16 {
		return errors.New("1 to 16 tests can be asked for at once")
	}
	for _, name := range tests {
		if err := envelope.CheckText("tests", name, 80); err != nil {
			return err
		}
	}
	return nil
}

func optionalText(flag, text string) error {
	if text == "" {
		return nil
	}
	if err := envelope.CheckText(flag, text, 1000); err != nil {
		return usageError{err}
	}
	return nil
}
