package main

import (
	"fmt"

	"github.com/kernelgate/kernelgate/storage/witness"
	"github.com/kernelgate/kernelgate/workflow"
)

// Witnesses say who cosigns the log's checkpoints, docs/audit-log.md.
type Witnesses struct {
	Policy string `yaml:"policy"` // a file, in the form of C2SP tlog-policy; empty: nobody is asked
	Await  bool   `yaml:"await"`  // an upgrade is applied only when they have cosigned
}

func (w *Witnesses) settle(c *Config) error {
	if w.Policy != "" {
		w.Policy = c.path(w.Policy)
	}
	return nil
}

// open is nil where nobody is asked.
func (w *Witnesses) open(s workflow.Store) (workflow.Witnesses, error) {
	policy, err := openWitnesses(w.Policy)
	if err != nil || policy == nil {
		return nil, err
	}
	all, err := witness.New(policy, s, nil)
	if err != nil {
		return nil, fmt.Errorf("witnesses: %w", err)
	}
	return all, nil
}
