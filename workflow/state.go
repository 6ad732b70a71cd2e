package workflow

import (
	"fmt"
)

// Move is what happens to an upgrade; the table says from where to where.
type Move string

// The moves of docs/state-machine.md.
const (
	MoveTestsFailed     Move = "tests_failed"
	MoveReady           Move = "ready"
	MoveQuorum          Move = "quorum"
	MoveQuorumLost      Move = "quorum_lost"
	MoveReject          Move = "reject"
	MoveExpire          Move = "expire"
	MoveApply           Move = "apply"
	MoveRetake          Move = "retake"
	MoveApplied         Move = "applied"
	MoveApplyFailed     Move = "apply_failed"
	MoveValidate        Move = "validate"
	MoveComplete        Move = "complete"
	MoveEmergency       Move = "emergency"
	MoveEmergencyLive   Move = "emergency_applied"
	MoveRatify          Move = "ratify"
	MoveScheduleRolling Move = "schedule_rollback"
	MoveRolledBack      Move = "rolled_back"
)

// transitions is the one table. What is not in it is refused.
var transitions = map[State]map[Move]State{
	StateDraft: {
		MoveTestsFailed: StatePaused, MoveReady: StatePendingApproval, MoveReject: StateRejected,
		MoveExpire: StateExpired, MoveEmergency: StateApplying,
	},
	StatePaused: {
		MoveReady: StatePendingApproval, MoveReject: StateRejected, MoveExpire: StateExpired, MoveEmergency: StateApplying,
	},
	StatePendingApproval: {
		MoveTestsFailed: StatePaused, MoveQuorum: StateQuorumReached, MoveReject: StateRejected,
		MoveExpire: StateExpired, MoveEmergency: StateApplying,
	},
	StateQuorumReached: {
		MoveTestsFailed: StatePaused, MoveQuorumLost: StatePendingApproval, MoveReject: StateRejected,
		MoveExpire: StateExpired, MoveApply: StateApplying, MoveEmergency: StateApplying,
	},
	StateApplying: {
		MoveRetake: StateQuorumReached, MoveReject: StateRejected, MoveApplied: StateApplied,
		MoveApplyFailed: StateApplyFailed, MoveEmergencyLive: StateEmergencyApplied,
	},
	StateApplied: {
		MoveValidate: StateValidating, MoveComplete: StateCompleted, MoveRolledBack: StateRolledBack,
	},
	StateValidating: {
		MoveComplete: StateCompleted, MoveScheduleRolling: StateRollbackScheduled, MoveRolledBack: StateRolledBack,
	},
	StateCompleted: {MoveRolledBack: StateRolledBack},
	StateEmergencyApplied: {
		MoveRatify: StateValidating, MoveComplete: StateCompleted, MoveScheduleRolling: StateRollbackScheduled, MoveRolledBack: StateRolledBack,
	},
	StateRollbackScheduled: {MoveComplete: StateCompleted, MoveRolledBack: StateRolledBack},
}

// Next is the state after a move; ErrConflict, with the reason, where the
// table has none.
func Next(from State, move Move) (State, error) {
	to, ok := transitions[from][move]
	if !ok {
		return from, fmt.Errorf("%w: an upgrade that is %s cannot take the step %s", ErrConflict, from, move)
	}
	return to, nil
}

// open reports whether people's records still change an upgrade.
func open(s State) bool {
	return s == StateDraft || s == StatePaused || s == StatePendingApproval || s == StateQuorumReached
}

// counting are the states in which people's decisions count: those of open, and
// emergencies that await their ratification.
var counting = []State{StateDraft, StatePaused, StatePendingApproval, StateQuorumReached, StateEmergencyApplied}
