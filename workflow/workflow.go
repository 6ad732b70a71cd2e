// Package workflow is the engine: it takes people's signed records, keeps the
// state of each upgrade, and takes an upgrade with a quorum through apply,
// canary and completion. It owns its ports; adapters implement them.
package workflow
