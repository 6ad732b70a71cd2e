package main

import (
	"context"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// testFlags are a test run: of which patch, and how it ended.
type testFlags struct {
	name, result, junit, key, artifact, link string
}

func (a *app) testCommand() *cobra.Command {
	cmd := group("test", "Report test results", "CI signs what its tests found about one artifact, by its digest.")
	cmd.AddCommand(a.testSubmit())
	return cmd
}

func (a *app) testSubmit() *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use:   "submit [ID] --name NAME (--result RESULT | --junit FILE) --key URI",
		Short: "Sign a test's result and report it",
		Long: `Sign a test's result, as an in-toto test result about the artifact, and report it. The artifact is
--artifact, or that of the upgrade ID, downloaded; it is hashed here either way. CI asks nobody: this never waits for a yes.`,
		Example: `  kgctl test submit --artifact site.tar.gz --name unit --result passed --key "$URI"
  kgctl test submit 0190a5e0-0000-7000-8000-000000000001 --name unit --junit results.xml --key "$URI"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return oneUpgrade(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "name", "key"); err != nil {
				return err
			}
			if len(args) == 0 && f.artifact == "" {
				return usagef("which artifact was tested? Name the upgrade's ID or --artifact FILE")
			}
			return a.submitTest(cmd.Context(), args, f)
		},
	}
	s := cmd.Flags()
	s.StringVar(&f.name, "name", "", "the test's name, as manifests require it")
	s.StringVar(&f.result, "result", "", "passed, failed or warned")
	s.StringVar(&f.junit, "junit", "", "JUnit XML file to take the result from")
	s.StringVar(&f.artifact, "artifact", "", "the artifact that was tested")
	s.StringVar(&f.link, "url", "", "where the run's log is")
	s.StringVar(&f.key, "key", "", "URI of CI's key")
	return cmd
}

func (a *app) submitTest(ctx context.Context, args []string, f testFlags) error {
	if err := envelope.CheckText("--name", f.name, 80); err != nil {
		return usageError{err}
	}
	found, err := f.outcome()
	if err != nil {
		return err
	}
	s, err := a.open(ctx)
	if err != nil {
		return err
	}
	subject, patch, err := a.tested(ctx, s, args, f)
	if err != nil {
		return err
	}
	a.say("Test %s of %s (%s): %s", f.name, foreign(subject), patch, found.Result)
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	key, err := a.openKey(ctx, f.key)
	if err != nil {
		return err
	}
	defer key.Close()
	if _, err := a.signatory(s, envelope.KeyID(key.Public().KeyID()), keyregistry.KindCI); err != nil {
		return err
	}
	env, err := envelope.Seal(ctx, key, envelope.TypeInToto, statement(subject, patch, f, found, a.time()))
	if err != nil {
		return err
	}
	if _, err := upgrade.VerifyTestResult(s.registry(), env, patch, a.time()); err != nil {
		return err
	}
	return a.submit(ctx, s.Client, env)
}

// tested is the artifact's name and the digest of its bytes.
func (a *app) tested(ctx context.Context, s *session, args []string, f testFlags) (string, envelope.Digest, error) {
	if len(args) == 0 {
		patch, err := hashFile(f.artifact)
		return f.name, patch, err
	}
	r, err := a.read(ctx, s, envelope.UUID(args[0]))
	if err != nil {
		return "", envelope.Digest{}, err
	}
	if required := r.manifest.Preconditions.Tests; !slices.Contains(required, f.name) {
		a.say("Note: the upgrade does not require a test named %q; it requires %q.", f.name, required)
	}
	_, done, err := a.artifact(ctx, s.Client, r.manifest.PatchHash, f.artifact)
	if err != nil {
		return "", envelope.Digest{}, err
	}
	done()
	return string(r.manifest.Target.Name), r.manifest.PatchHash, nil
}

func (f testFlags) outcome() (outcome, error) {
	if (f.result == "") == (f.junit == "") {
		return outcome{}, usagef("say how it ended: by --result or by --junit, one of them")
	}
	if f.junit != "" {
		return readJUnit(f.junit)
	}
	switch f.result {
	case "passed", "failed", "warned":
		return outcome{Result: strings.ToUpper(f.result)}, nil
	}
	return outcome{}, usagef("--result is passed, failed or warned, not %.40q", f.result)
}

// The parts of an in-toto test result v0.1.
type (
	testStatement struct {
		Type          string        `json:"_type"`
		Subject       []testSubject `json:"subject"`
		PredicateType string        `json:"predicateType"`
		Predicate     testPredicate `json:"predicate"`
	}
	testSubject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	testPredicate struct {
		outcome       `json:",inline"`
		Configuration []testConfiguration `json:"configuration"`
		URL           string              `json:"url,omitzero"`
	}
	testConfiguration struct {
		Name        string            `json:"name"`
		URI         string            `json:"uri"`
		Annotations map[string]string `json:"annotations"`
	}
	// outcome is what a run found; the names inform.
	outcome struct {
		Result      string   `json:"result"`
		PassedTests []string `json:"passedTests,omitzero"`
		FailedTests []string `json:"failedTests,omitzero"`
	}
)

// statement has a run of its own each time: a payload that was received before
// is ignored, and a test that passes again must count again.
func statement(subject string, patch envelope.Digest, f testFlags, found outcome, now envelope.Time) testStatement {
	return testStatement{
		Type: upgrade.StatementType, PredicateType: upgrade.TestResultType,
		Subject: []testSubject{{Name: subject, Digest: map[string]string{"sha256": hex.EncodeToString(patch[:])}}},
		Predicate: testPredicate{outcome: found, URL: f.link, Configuration: []testConfiguration{{
			Name: f.name, URI: "urn:kernelgate:test:" + url.PathEscape(f.name),
			Annotations: map[string]string{"finishedAt": now.String(), "run": uuid.NewString()},
		}}},
	}
}
