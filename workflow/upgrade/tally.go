package upgrade

import (
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// Suspended says whether a key is suspended.
type Suspended func(envelope.KeyID) bool

// Decision is an approval or a rejection that verified when it was received.
type Decision struct {
	Person   envelope.ID
	Rejected bool
	SignedAt envelope.Time
	Envelope envelope.Envelope
	Approval *Approval // what OpenApproval made of Envelope; nil: it is parsed each time that it is counted
}

// SeatStatus is how one approver stands towards an upgrade.
type SeatStatus string

// What a seat may be.
const (
	SeatWaiting   SeatStatus = "waiting"
	SeatApproved  SeatStatus = "approved"
	SeatRejected  SeatStatus = "rejected"
	SeatStale     SeatStatus = "stale"     // older than the TTL
	SeatSuspended SeatStatus = "suspended" // signed by a key that is suspended
	SeatVoid      SeatStatus = "void"      // does not count any more: a new registry, say
)

// Seat is one of the five approvers with their newest decision.
type Seat struct {
	Person   envelope.ID
	Status   SeatStatus
	SignedAt envelope.Time // zero while waiting
	KeyID    envelope.KeyID
	Reason   string // why it does not count, in plain words
}

// Count is where an upgrade stands.
type Count struct {
	Seats     []Seat              // five, in the order of the document
	Approvals []envelope.Envelope // those that count, sorted by approver
	Approvers []envelope.ID       // their persons
	Quorum    bool
	Rejected  bool // three persons' newest decisions are rejections
}

// Tally counts persons, never signatures or keys: each by the newest decision
// alone, by the registry document in force, at time t (PROTOCOL section 7).
// The decisions stand in the order in which they were received: of two approvals
// of one second the later counts, since the earlier may be of an older registry.
func Tally(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, decisions []Decision, suspended Suspended, t envelope.Time) Count {
	newest := make(map[envelope.ID]Decision)
	for _, d := range decisions {
		last, ok := newest[d.Person]
		if !ok || d.SignedAt.After(last.SignedAt) || d.SignedAt == last.SignedAt && (d.Rejected || !last.Rejected) {
			newest[d.Person] = d
		}
	}
	var c Count
	nonBrowser, rejections := int64(0), 0
	approvers := reg.Document().Approvers
	for i := range approvers {
		person := approvers[i].ID
		d, ok := newest[person]
		if !ok {
			c.Seats = append(c.Seats, Seat{Person: person, Status: SeatWaiting})
			continue
		}
		seat := judge(reg, m, manifestDigest, d, suspended, t)
		c.Seats = append(c.Seats, seat)
		switch seat.Status {
		case SeatRejected:
			rejections++
		case SeatApproved:
			c.Approvals = append(c.Approvals, d.Envelope)
			c.Approvers = append(c.Approvers, person)
			if d.Envelope.Signatures[0].WebAuthn == nil {
				nonBrowser++
			}
		}
	}
	c.Rejected = rejections >= Quorum
	c.Quorum = len(c.Approvers) >= Quorum && nonBrowser >= reg.Rules().MinNonBrowserApprovals
	return c
}

// verify is VerifyApproval of an approval that may be parsed already.
func (d *Decision) verify(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, t envelope.Time) (*Approval, error) {
	if d.Approval == nil {
		return VerifyApproval(reg, m, manifestDigest, d.Envelope, t)
	}
	return d.Approval, CheckApproval(reg, m, manifestDigest, d.Envelope, d.Approval, t)
}

func judge(reg *keyregistry.Registry, m *Manifest, manifestDigest envelope.Digest, d Decision, suspended Suspended, t envelope.Time) Seat {
	seat := Seat{Person: d.Person, SignedAt: d.SignedAt, KeyID: d.Envelope.Signatures[0].KeyID, Status: SeatApproved}
	var a *Approval
	var err error
	if d.Rejected {
		// A no stands even where a new registry came in between: the person
		// has to say yes again to be counted as yes.
		seat.Status = SeatRejected
	} else if a, err = d.verify(reg, m, manifestDigest, t); err != nil {
		seat.Status = SeatVoid
		if failure.ClassOf(err) == failure.ApprovalStale {
			seat.Status = SeatStale
		}
		seat.Reason = failure.DetailOf(err)
	} else if a.ApproverID != d.Person || a.ApprovalTs != d.SignedAt {
		// What was signed counts, not the columns of a table beside it.
		seat.Status, seat.Reason = SeatVoid, "the stored row names another person or time than the signed approval"
	}
	if suspended(seat.KeyID) {
		seat.Status, seat.Reason = SeatSuspended, "the key that signed is suspended"
	}
	return seat
}
