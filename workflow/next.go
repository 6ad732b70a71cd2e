package workflow

import (
	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// Action is what has to happen next.
type Action string

// What an upgrade may wait for.
const (
	ActNone            Action = "none"             // it has ended
	ActKernel          Action = "kernel"           // the gateway or the guard goes on by itself
	ActRequestApproval Action = "request_approval" // whoever may propose opens it for approvals
	ActTests           Action = "tests"            // CI reports required tests
	ActPolicy          Action = "policy"           // the policy denies; its message says what would satisfy it
	ActApprove         Action = "approve"          // approvers decide
	ActRatify          Action = "ratify"           // approvers ratify an emergency, by ratifyBy
	ActDecide          Action = "decide"           // people propose a rollback or a further upgrade
)

// NextStep is the next step and who may take it; Who is sorted, and empty where
// it is the Kernel or nobody.
type NextStep struct {
	Action Action
	Who    []envelope.ID
	// Missing is how many approvals more are needed, at least.
	Missing int
}

func (d *dossier) next(count upgrade.Count, now envelope.Time) NextStep {
	switch d.State {
	case StateDraft:
		return NextStep{Action: ActRequestApproval, Who: proposers(d.reg.Document())}
	case StatePaused:
		return NextStep{Action: ActTests, Who: ids(d.reg.Document().CI)}
	case StatePendingApproval:
		if d.policy != nil && !d.policy.Allow {
			return NextStep{Action: ActPolicy, Who: proposers(d.reg.Document())}
		}
		return d.waiting(ActApprove, count)
	case StateEmergencyApplied:
		if d.RatifyBy == nil || now.After(*d.RatifyBy) && d.Type == upgrade.TypeRollback {
			return NextStep{Action: ActDecide, Who: proposers(d.reg.Document())}
		}
		if count.Quorum || now.After(*d.RatifyBy) {
			return NextStep{Action: ActKernel}
		}
		return d.waiting(ActRatify, count)
	case StateValidating:
		if d.report != nil {
			return NextStep{Action: ActDecide, Who: proposers(d.reg.Document())}
		}
	case StateRollbackScheduled:
		if d.RollbackID == "" && d.NextAt == nil || d.refusedRollback {
			return NextStep{Action: ActDecide, Who: proposers(d.reg.Document())}
		}
	case StateRejected, StateExpired, StateCompleted, StateRolledBack, StateApplyFailed:
		return NextStep{Action: ActNone}
	}
	return NextStep{Action: ActKernel}
}

// waiting lists who has not said yes, or whose yes does not count, and may.
func (d *dossier) waiting(action Action, count upgrade.Count) NextStep {
	step := NextStep{Action: action, Missing: max(upgrade.Quorum-len(count.Approvers), 0)}
	if step.Missing == 0 && !count.Quorum {
		step.Missing = 1 // three approve, but too few from outside a browser
	}
	for _, seat := range count.Seats {
		own := seat.Person == d.ProposedBy && d.reg.Rules().SeparationOfDuties
		if seat.Status != upgrade.SeatApproved && !own {
			step.Who = append(step.Who, seat.Person)
		}
	}
	return step
}

func proposers(doc *keyregistry.Document) []envelope.ID {
	var out []envelope.ID
	for i := range doc.Approvers {
		out = append(out, doc.Approvers[i].ID)
	}
	return append(out, ids(doc.Requestors)...)
}

func ids(people []keyregistry.Person) []envelope.ID {
	var out []envelope.ID
	for i := range people {
		out = append(out, people[i].ID)
	}
	return out
}
