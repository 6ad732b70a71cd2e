package history

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Report is a verdict's JSON form. Class, Detail and Row are there when the
// log is not valid, the rest when it is.
type Report struct {
	Valid           bool            `json:"valid"`
	Class           failure.Class   `json:"class"`
	Detail          string          `json:"detail"`
	Row             *int64          `json:"row,omitzero"` // seq of the first bad event, where one is
	KernelID        envelope.ID     `json:"kernelId,omitzero"`
	Events          int64           `json:"events,omitzero"`
	RootHash        string          `json:"rootHash,omitzero"` // base64, as in the checkpoint
	From            *envelope.Time  `json:"from,omitzero"`
	To              *envelope.Time  `json:"to,omitzero"`
	RegistryVersion int64           `json:"registryVersion,omitzero"`
	EventKeys       int             `json:"eventKeys,omitzero"`
	UnknownTypes    int64           `json:"unknownTypes,omitzero"`
	Kept            int             `json:"keptCheckpoints,omitzero"`
	Witnesses       []ReportWitness `json:"witnesses,omitzero"`
}

// ReportWitness is one cosignature that was counted.
type ReportWitness struct {
	Name string        `json:"name"`
	Time envelope.Time `json:"time"`
}

// NewReport is the report of what Verify or VerifyFile returned, where err is
// nil or has a failure class.
func NewReport(v *Verdict, err error) Report {
	if err != nil {
		r := Report{Class: failure.ClassOf(err), Detail: failure.DetailOf(err)}
		if seq, ok := BadRow(err); ok {
			r.Row = &seq
		}
		return r
	}
	r := Report{
		Valid: true, KernelID: v.KernelID, Events: v.Size, RootHash: base64.StdEncoding.EncodeToString(v.Root[:]), From: &v.From, To: &v.To,
		RegistryVersion: v.RegistryVersion, EventKeys: v.EventKeys, UnknownTypes: v.Unknown, Kept: v.Kept,
	}
	for _, c := range v.Cosignatures {
		r.Witnesses = append(r.Witnesses, ReportWitness{c.Witness, c.Time})
	}
	return r
}

// String is the report for people.
func (r Report) String() string {
	if !r.Valid {
		return fmt.Sprintf("NOT VALID  %s: %s\n", r.Class, r.Detail)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "VALID  the log of %s, %d events from %s to %s\n", r.KernelID, r.Events, r.From, r.To)
	fmt.Fprintf(&b, "  root hash   %s\n  event keys  %d, delegated under registry versions 1 to %d\n", r.RootHash, r.EventKeys, r.RegistryVersion)
	if r.Kept > 0 {
		fmt.Fprintf(&b, "  kept        continues the kept checkpoints (%d)\n", r.Kept)
	} else {
		fmt.Fprintf(&b, "  kept        none was given: that nothing was cut or replaced is not shown\n")
	}
	for _, w := range r.Witnesses {
		fmt.Fprintf(&b, "  witness     %s at %s\n", w.Name, w.Time)
	}
	if r.UnknownTypes > 0 {
		fmt.Fprintf(&b, "  unknown     %d events are of types that this version does not know\n", r.UnknownTypes)
	}
	return b.String()
}
