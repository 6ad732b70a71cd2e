package commandpad

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// testRun is one required test and its newest result, if there is one.
type testRun struct {
	Name, Result string // Result is "" where it has not run
	By           envelope.ID
	At           envelope.Time
	Over         envelope.Digest
	Link         string // where the run can be read; "" for none
	Failed       []string
}

// testRequest is what an approver wants to be tested first.
type testRequest struct {
	By    envelope.ID
	At    envelope.Time
	Tests []string
	Notes string
}

// runsOf goes through the required tests. Which result counts, the engine has
// decided; the records know who sent it and where it can be read.
func runsOf(required []string, results []upgrade.TestResult, records []workflow.Record) []testRun {
	var runs []testRun
	for _, name := range required {
		run := testRun{Name: name}
		for _, result := range results {
			if result.Name == name {
				run.Result, run.Over = result.Result, result.Patch
			}
		}
		if run.Result != "" {
			for _, record := range records {
				run.take(record)
			}
		}
		runs = append(runs, run)
	}
	return runs
}

// take adds what a record says beside the result; records come oldest first.
func (run *testRun) take(record workflow.Record) {
	if record.Kind != workflow.KindTestResult {
		return
	}
	env, err := envelope.Parse(record.Body)
	if err != nil {
		return
	}
	var statement struct {
		Subject []struct {
			Name string `json:"name"`
		} `json:"subject"`
		Predicate struct {
			Result        string `json:"result"`
			URL           string `json:"url"`
			Configuration []struct {
				Name string `json:"name"`
			} `json:"configuration"`
			Failed []string `json:"failedTests"`
		} `json:"predicate"`
	}
	if envelope.DecodeForeign(env.Payload, &statement) != nil || len(statement.Subject) != 1 {
		return
	}
	name := statement.Subject[0].Name
	if c := statement.Predicate.Configuration; len(c) > 0 {
		name = c[0].Name
	}
	if name != run.Name || statement.Predicate.Result != run.Result {
		return
	}
	run.By, run.At, run.Failed, run.Link = record.Person, record.ReceivedAt, statement.Predicate.Failed, ""
	if u, err := url.Parse(statement.Predicate.URL); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" {
		run.Link = u.String()
	}
}

func requestOf(record workflow.Record) testRequest {
	asked := testRequest{By: record.Person, At: record.ReceivedAt}
	env, err := envelope.Parse(record.Body)
	if err != nil {
		return asked
	}
	var said struct {
		Tests []string `json:"tests"`
		Notes string   `json:"notes"`
	}
	if envelope.DecodeForeign(env.Payload, &said) == nil {
		asked.Tests, asked.Notes = said.Tests, said.Notes
	}
	return asked
}

// field is one member of a manifest, as people read it.
type field struct{ Name, Value string }

// fieldsOf are a manifest's members in the order of its canonical bytes.
func fieldsOf(m *upgrade.Manifest) []field {
	cost := "none stated"
	if m.Impact.Cost != nil {
		cost = money(m.Impact.Cost)
	}
	fields := []field{
		{"baseRevision", string(m.BaseRevision)}, {"impact.components", strings.Join(m.Impact.Components, ", ")}, {"impact.cost", cost},
		{"impact.downtime", m.Impact.Downtime}, {"kernelId", string(m.KernelID)}, {"keyId", string(m.KeyID)}, {"patchHash", m.PatchHash.String()},
		{"preconditions.approvals", strconv.FormatInt(m.Preconditions.Approvals, 10)}, {"preconditions.tests", orNone(strings.Join(m.Preconditions.Tests, ", "))},
		{"proposedBy", string(m.ProposedBy)}, {"rationale", m.Rationale},
	}
	if m.Rollback != nil {
		fields = append(fields, field{"rollback.reason", m.Rollback.Reason}, field{"rollback.upgradeId", string(m.Rollback.UpgradeID)})
	}
	fields = append(fields, field{"target.name", string(m.Target.Name)})
	if m.Target.ManifestID != "" {
		fields = append(fields, field{"target.manifestId", m.Target.ManifestID})
	} else {
		fields = append(fields, field{"target.repository", m.Target.Repository}, field{"target.path", m.Target.Path}, field{"target.commit", m.Target.Commit})
	}
	return append(fields, field{"timestamp", m.Timestamp.String()}, field{"type", string(m.Type)}, field{"upgradeId", string(m.UpgradeID)})
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
