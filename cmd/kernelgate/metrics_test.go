package main

import (
	"maps"
	"testing"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/storage/auditlog"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// The signatures that a log accounts for, by the table of docs/guard.md.
func TestTally(t *testing.T) {
	const a, b, c = envelope.UUID("a"), envelope.UUID("b"), envelope.UUID("c")
	tally := newTally()
	for i, e := range []auditlog.Event{
		{Type: auditlog.KeyDelegated},
		{Type: auditlog.UpgradeApplying, UpgradeID: a}, {Type: auditlog.UpgradeApplied, UpgradeID: a}, {Type: auditlog.UpgradeCompleted, UpgradeID: a},
		{Type: auditlog.UpgradeApplying, UpgradeID: b}, {Type: auditlog.GuardDenied, UpgradeID: b}, // its time was over
		{Type: auditlog.UpgradeApplying, UpgradeID: b}, {Type: auditlog.UpgradeApplied, UpgradeID: b}, {Type: auditlog.UpgradeEmergencyApplied, UpgradeID: b},
		{Type: auditlog.UpgradeRatified, UpgradeID: b}, {Type: auditlog.GuardDenied, UpgradeID: b},
		{Type: auditlog.UpgradeRatified, UpgradeID: b}, {Type: auditlog.UpgradeCompleted, UpgradeID: b},
		{Type: auditlog.GuardDenied, UpgradeID: a}, // about a rollback manifest of a
		{Type: auditlog.GuardDenied},               // about a registry
		{Type: auditlog.UpgradeCreated, UpgradeID: c, Actor: upgrade.KernelID}, {Type: auditlog.UpgradeCreated, UpgradeID: "d", Actor: "ann"},
		{Type: auditlog.UpgradeApplying, UpgradeID: c},
		{Type: auditlog.KeyDelegated},
	} {
		e.Seq = int64(i)
		tally.add(e)
	}
	want := map[string]int64{kindRecord: 3, kindRatification: 1, kindRollback: 1, kindDelegation: 2}
	if !maps.Equal(tally.signed, want) || tally.types[auditlog.GuardDenied] != 4 || len(tally.asked) != 1 || tally.next != 19 {
		t.Errorf("%v, asked %v, next %d", tally.signed, tally.asked, tally.next)
	}
}
