package auditlog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/signer/envelope"
)

// WitnessPolicy says which witnesses must have cosigned a checkpoint. Its text
// is that of C2SP tlog-policy (which Sigsum and Tessera read as well):
//
//	witness NAME VKEY [URL]
//	group NAME all|any|N MEMBER...
//	quorum NAME|none
//
// A name is defined before it is used, and stands in at most one group.
type WitnessPolicy struct {
	witnesses []Witness
	names     map[string]int // of witnesses, by the policy's name for each
	groups    map[string]group
	quorum    string
}

type group struct {
	threshold int
	members   []string
}

const (
	maxPolicy    = 64 << 10
	maxWitnesses = 64 // a note holds at most 100 signatures
	noQuorum     = "none"
)

// ParseWitnessPolicy parses a policy's text. Its errors name the line.
func ParseWitnessPolicy(text string) (*WitnessPolicy, error) {
	if len(text) > maxPolicy {
		return nil, fmt.Errorf("the witness policy has %d bytes, at most %d are read", len(text), maxPolicy)
	}
	p := &WitnessPolicy{names: map[string]int{}, groups: map[string]group{}}
	used := map[string]bool{}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if err := p.line(fields, used); err != nil {
			return nil, fmt.Errorf("line %d of the witness policy: %w", i+1, err)
		}
	}
	if p.quorum == "" {
		return nil, fmt.Errorf("the witness policy has no quorum line")
	}
	return p, nil
}

func (p *WitnessPolicy) line(fields []string, used map[string]bool) error {
	switch {
	case fields[0] == "log":
		return nil // for other readers: here the log's keys are the registry's
	case fields[0] == "witness" && (len(fields) == 3 || len(fields) == 4):
		return p.addWitness(fields[1:])
	case fields[0] == "group" && len(fields) >= 4:
		return p.addGroup(fields[1], fields[2], fields[3:], used)
	case fields[0] == "quorum" && len(fields) == 2:
		if p.quorum != "" {
			return fmt.Errorf("a second quorum")
		}
		if fields[1] != noQuorum && !p.knows(fields[1]) {
			return fmt.Errorf("%.80q is not defined", fields[1])
		}
		p.quorum = fields[1]
		return nil
	}
	return fmt.Errorf("%.80q is no line of a policy", strings.Join(fields, " "))
}

func (p *WitnessPolicy) knows(name string) bool {
	_, witness := p.names[name]
	_, group := p.groups[name]
	return witness || group
}

func (p *WitnessPolicy) addWitness(fields []string) error {
	name := fields[0]
	if p.knows(name) || name == noQuorum {
		return fmt.Errorf("%.80q is defined already", name)
	}
	w, err := ParseWitness(fields[1])
	if err != nil {
		return err
	}
	if len(fields) == 3 {
		w.URL = fields[2]
	}
	// Two names for one key would be counted as two witnesses.
	for _, other := range p.witnesses {
		if other.Key.Equal(w.Key) || other.Name == w.Name {
			return fmt.Errorf("the key of %.80q is another witness's, or has its name", name)
		}
	}
	if len(p.witnesses) == maxWitnesses {
		return fmt.Errorf("more than %d witnesses", maxWitnesses)
	}
	p.names[name] = len(p.witnesses)
	p.witnesses = append(p.witnesses, w)
	return nil
}

func (p *WitnessPolicy) addGroup(name, threshold string, members []string, used map[string]bool) error {
	if p.knows(name) || name == noQuorum {
		return fmt.Errorf("%.80q is defined already", name)
	}
	for _, m := range members {
		if !p.knows(m) || used[m] {
			return fmt.Errorf("member %.80q is not defined, or stands in a group already", m)
		}
		used[m] = true
	}
	n := 1
	switch threshold {
	case "any":
	case "all":
		n = len(members)
	default:
		var err error
		if n, err = strconv.Atoi(threshold); err != nil || n < 1 || n > len(members) {
			return fmt.Errorf("the threshold of a group is all, any or 1 to %d", len(members))
		}
	}
	p.groups[name] = group{n, members}
	return nil
}

// Witnesses are those that the policy names.
func (p *WitnessPolicy) Witnesses() []Witness { return slices.Clone(p.witnesses) }

// Check refuses a checkpoint's note that too few witnesses have cosigned
// (audit_proof_invalid). It returns the cosignatures that it counted.
func (p *WitnessPolicy) Check(text string) ([]Cosignature, error) {
	found, err := Cosignatures(text, p.witnesses)
	if err != nil {
		return nil, err
	}
	if p.quorum != noQuorum && !p.satisfied(p.quorum, found) {
		return found, proofInvalid("%d of the policy's %d witnesses have cosigned the checkpoint, which its quorum %.80q does not take", len(found), len(p.witnesses), p.quorum)
	}
	return found, nil
}

func (p *WitnessPolicy) satisfied(name string, found []Cosignature) bool {
	if i, ok := p.names[name]; ok {
		return slices.ContainsFunc(found, func(c Cosignature) bool { return c.Witness == p.witnesses[i].Name })
	}
	g := p.groups[name]
	n := 0
	for _, m := range g.members {
		if p.satisfied(m, found) {
			n++
		}
	}
	return n >= g.threshold
}

func timeOfUnix(seconds uint64) envelope.Time { return envelope.TimeOf(time.Unix(int64(seconds), 0)) }
