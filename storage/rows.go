package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

// maxPage is the most rows of one page; defaultPage where none is asked for.
const (
	maxPage     = 1000
	defaultPage = 100
)

// reader reads inside one transaction.
type reader struct {
	ctx context.Context
	tx  *session
	dialect
}

// writer also writes; tail is where the log ends so far in the transaction.
type writer struct {
	reader
	store *db
	tail  tail
	once  once
}

func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return workflow.ErrNotFound
	}
	return err
}

func collect[T any](r *reader, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := r.tx.QueryContext(r.ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

func timeOf(unix int64) envelope.Time { return envelope.TimeOf(time.Unix(unix, 0)) }

// optionalDigest is the text of a digest, "" for the zero value.
func optionalDigest(d envelope.Digest) string {
	if d == (envelope.Digest{}) {
		return ""
	}
	return d.String()
}

func parseDigest(text string) (envelope.Digest, error) {
	if text == "" {
		return envelope.Digest{}, nil
	}
	return envelope.ParseDigest(text)
}

func optionalTime(unix *int64) *envelope.Time {
	if unix == nil {
		return nil
	}
	t := timeOf(*unix)
	return &t
}

func optionalUnix(t *envelope.Time) *int64 {
	if t == nil {
		return nil
	}
	unix := t.Unix()
	return &unix
}

const upgradeColumns = "id, target, type, state, manifest_digest, proposed_by, created_at, updated_at, next_at, expires_at, reason, bundle_digest, patch, decision_case, ratify_by, rollback_id, ratifying, version, intent"

func scanUpgrade(rows *sql.Rows) (workflow.Upgrade, error) {
	var u workflow.Upgrade
	var manifest, bundle, patch, ratifying string
	var created, updated, expires int64
	var next, ratify *int64
	err := rows.Scan(&u.ID, &u.Target, &u.Type, &u.State, &manifest, &u.ProposedBy, &created, &updated, &next, &expires, &u.Reason, &bundle,
		&patch, &u.Case, &ratify, &u.RollbackID, &ratifying, &u.Version, &u.Intent)
	if err != nil {
		return u, err
	}
	u.CreatedAt, u.UpdatedAt, u.ExpiresAt = timeOf(created), timeOf(updated), timeOf(expires)
	u.NextAt, u.RatifyBy = optionalTime(next), optionalTime(ratify)
	if u.Ratifying, err = parseDigest(ratifying); err != nil {
		return u, err
	}
	if u.Patch, err = parseDigest(patch); err != nil {
		return u, err
	}
	if u.ManifestDigest, err = parseDigest(manifest); err != nil {
		return u, err
	}
	u.BundleDigest, err = parseDigest(bundle)
	return u, err
}

// Upgrade is one upgrade's row.
func (r *reader) Upgrade(id envelope.UUID) (workflow.Upgrade, error) {
	list, err := collect(r, scanUpgrade, "SELECT "+upgradeColumns+" FROM upgrades WHERE id = $1", string(id))
	if err == nil && len(list) == 0 {
		err = workflow.ErrNotFound
	}
	if err != nil {
		return workflow.Upgrade{}, err
	}
	return list[0], nil
}

// Upgrades is one page, newest first. The cursor is the last row's time and id.
func (r *reader) Upgrades(p workflow.Page) ([]workflow.Upgrade, string, error) {
	if p.Limit <= 0 {
		p.Limit = defaultPage
	}
	p.Limit = min(p.Limit, maxPage)
	var args arguments
	where := []string{"TRUE"}
	if len(p.States) > 0 {
		where = append(where, "state IN ("+listOf(&args, p.States)+")")
	}
	if p.Target != "" {
		where = append(where, "target = "+args.add(string(p.Target)))
	}
	if p.Patch != (envelope.Digest{}) {
		where = append(where, "patch = "+args.add(p.Patch.String()))
	}
	if p.Search != "" {
		where = append(where, "search LIKE "+args.add("%"+literal.Replace(strings.ToLower(p.Search))+"%")+` ESCAPE '\'`)
	}
	if p.Cursor != "" {
		at, id, ok := strings.Cut(p.Cursor, "_")
		created, err := strconv.ParseInt(at, 10, 64)
		if !ok || err != nil {
			return nil, "", failure.New(failure.FieldInvalid, "cursor %.80q is not one that a page gave", p.Cursor)
		}
		before := args.add(created)
		where = append(where, "(created_at < "+before+" OR created_at = "+before+" AND id > "+args.add(id)+")")
	}
	query := "SELECT " + upgradeColumns + " FROM upgrades WHERE " + strings.Join(where, " AND ") + " ORDER BY created_at DESC, id LIMIT " + args.add(p.Limit+1)
	list, err := collect(r, scanUpgrade, query, args.values...)
	if err != nil || len(list) <= p.Limit {
		return list, "", err
	}
	list = list[:p.Limit]
	last := list[p.Limit-1]
	return list, fmt.Sprintf("%d_%s", last.CreatedAt.Unix(), last.ID), nil
}

// literal takes the meaning from what LIKE treats as more than itself.
var literal = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

var putUpgrade = upsert("upgrades", "id", upgradeColumns+", search", ", claimed_by = NULL, claimed_until = NULL")

// PutUpgrade writes an upgrade's row, which is nobody's from then on.
func (w *writer) PutUpgrade(u workflow.Upgrade) error {
	_, err := w.tx.ExecContext(w.ctx, putUpgrade,
		string(u.ID), string(u.Target), string(u.Type), string(u.State), u.ManifestDigest.String(), string(u.ProposedBy),
		u.CreatedAt.Unix(), u.UpdatedAt.Unix(), optionalUnix(u.NextAt), u.ExpiresAt.Unix(), printable(u.Reason), optionalDigest(u.BundleDigest),
		optionalDigest(u.Patch), string(u.Case), optionalUnix(u.RatifyBy), string(u.RollbackID), optionalDigest(u.Ratifying), u.Version, u.Intent,
		strings.ToLower(strings.Join([]string{u.Intent, string(u.Target), string(u.Type), string(u.ProposedBy), string(u.ID)}, "\n")))
	return err
}

// printable is a text that either database takes: a reason may quote what a
// program wrote.
func printable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// Target is what is live somewhere.
func (r *reader) Target(name envelope.ID) (workflow.Target, error) {
	t := workflow.Target{Name: name, Live: upgrade.None}
	var emergencies string
	err := r.tx.QueryRowContext(r.ctx, "SELECT live, live_upgrade, applying, emergencies FROM targets WHERE name = $1", string(name)).
		Scan(&t.Live, &t.LiveUpgrade, &t.Applying, &emergencies)
	for _, id := range strings.Fields(emergencies) {
		t.Emergencies = append(t.Emergencies, envelope.UUID(id))
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return t, err
}

var putTarget = upsert("targets", "name", "name, live, live_upgrade, applying, emergencies", "")

// PutTarget writes what is live somewhere.
func (w *writer) PutTarget(t workflow.Target) error {
	emergencies := ""
	for _, id := range t.Emergencies {
		emergencies += string(id) + " "
	}
	_, err := w.tx.ExecContext(w.ctx, putTarget,
		string(t.Name), string(t.Live), string(t.LiveUpgrade), string(t.Applying), strings.TrimSpace(emergencies))
	return err
}

const recordColumns = "digest, seq, upgrade_id, kind, person, signed_at, received_at, patch, body"

func scanRecord(rows *sql.Rows) (workflow.Record, error) {
	var rec workflow.Record
	var digest, patch string
	var signed, received int64
	if err := rows.Scan(&digest, &rec.Seq, &rec.UpgradeID, &rec.Kind, &rec.Person, &signed, &received, &patch, &rec.Body); err != nil {
		return rec, err
	}
	rec.SignedAt, rec.ReceivedAt = timeOf(signed), timeOf(received)
	var err error
	if rec.Patch, err = parseDigest(patch); err != nil {
		return rec, err
	}
	rec.Digest, err = parseDigest(digest)
	return rec, err
}

// Records are an upgrade's records and the test results of its patch, in the
// order of receipt.
func (r *reader) Records(id envelope.UUID) ([]workflow.Record, error) {
	// Two halves, each by its index: of an OR PostgreSQL may read the whole table.
	query := "SELECT " + recordColumns + " FROM records WHERE upgrade_id = $1 UNION ALL SELECT " + recordColumns + " FROM records" +
		" WHERE patch <> '' AND patch = (SELECT patch FROM upgrades WHERE id = $1) AND upgrade_id <> $1 ORDER BY seq"
	return collect(r, scanRecord, query, string(id))
}

// Record is one record.
func (r *reader) Record(digest envelope.Digest) (workflow.Record, error) {
	list, err := collect(r, scanRecord, "SELECT "+recordColumns+" FROM records WHERE digest = $1", digest.String())
	if err == nil && len(list) == 0 {
		err = workflow.ErrNotFound
	}
	if err != nil {
		return workflow.Record{}, err
	}
	return list[0], nil
}

// NewestRecord is the seq of an upgrade's last record, test results of its
// patch included.
func (r *reader) NewestRecord(id envelope.UUID) (seq int64, err error) {
	query := "SELECT COALESCE((SELECT MAX(seq) FROM records WHERE upgrade_id = $1), 0)," +
		" COALESCE((SELECT MAX(seq) FROM records WHERE patch <> '' AND patch = (SELECT patch FROM upgrades WHERE id = $1)), 0)"
	var own, ofPatch int64
	err = r.tx.QueryRowContext(r.ctx, query, string(id)).Scan(&own, &ofPatch)
	return max(own, ofPatch), err
}

// RecordsBy are a person's newest records.
func (r *reader) RecordsBy(person envelope.ID, limit int) ([]workflow.Record, error) {
	query := "SELECT " + recordColumns + " FROM records WHERE person = $1 ORDER BY seq DESC LIMIT $2"
	return collect(r, scanRecord, query, string(person), limit)
}

// AddRecord stores a record whose digest is not known yet.
func (w *writer) AddRecord(rec workflow.Record) (bool, error) {
	query := "INSERT INTO records (" + recordColumns + ") SELECT $1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM records), $2, $3, $4, $5, $6, $7, $8" +
		" WHERE NOT EXISTS (SELECT 1 FROM records WHERE digest = $1)"
	result, err := w.tx.ExecContext(w.ctx, query,
		rec.Digest.String(), string(rec.UpgradeID), rec.Kind, string(rec.Person), rec.SignedAt.Unix(), rec.ReceivedAt.Unix(), optionalDigest(rec.Patch), rec.Body)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// Registry is the chain of registry entries, version 1 first.
func (r *reader) Registry() ([]keyregistry.SignedDocument, error) {
	return collect(r, func(rows *sql.Rows) (keyregistry.SignedDocument, error) {
		var e keyregistry.SignedDocument
		var statement []byte
		if err := rows.Scan(&e.Document, &statement); err != nil {
			return e, err
		}
		var err error
		e.Statement, err = envelope.Parse(statement)
		return e, err
	}, "SELECT document, statement FROM registry ORDER BY version")
}

// NewestRegistry is the newest document.
func (r *reader) NewestRegistry() (version int64, document []byte, err error) {
	err = r.tx.QueryRowContext(r.ctx, "SELECT version, document FROM registry ORDER BY version DESC LIMIT 1").Scan(&version, &document)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil, nil
	}
	return version, document, err
}

func (w *writer) addRegistry(version int64, e keyregistry.SignedDocument) error {
	_, err := w.tx.ExecContext(w.ctx, "INSERT INTO registry (version, document, statement) VALUES ($1, $2, $3)", version, e.Document, e.Statement.Bytes())
	return err
}

// Suspensions are those under one registry document, in the order of receipt.
func (r *reader) Suspensions(registryDigest envelope.Digest) ([]envelope.Envelope, error) {
	return collect(r, func(rows *sql.Rows) (envelope.Envelope, error) {
		var raw []byte
		if err := rows.Scan(&raw); err != nil {
			return envelope.Envelope{}, err
		}
		return envelope.Parse(raw)
	}, "SELECT envelope FROM suspensions WHERE registry_digest = $1 ORDER BY seq", registryDigest.String())
}

func (w *writer) addSuspension(env envelope.Envelope, registryDigest envelope.Digest) error {
	_, err := w.tx.ExecContext(w.ctx, "INSERT INTO suspensions (digest, registry_digest, seq, envelope) VALUES ($1, $2, (SELECT COALESCE(MAX(seq), 0) + 1 FROM suspensions), $3)",
		env.PayloadDigest().String(), registryDigest.String(), env.Bytes())
	return err
}

// Cursor is how far a follower of the log has come.
func (r *reader) Cursor(follower string) (next int64, err error) {
	err = r.tx.QueryRowContext(r.ctx, "SELECT next FROM cursors WHERE follower = $1", follower).Scan(&next)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return next, err
}

// PutCursor stores how far a follower of the log has come.
func (w *writer) PutCursor(follower string, next int64) error {
	_, err := w.tx.ExecContext(w.ctx, "INSERT INTO cursors (follower, next) VALUES ($1, $2) ON CONFLICT (follower) DO UPDATE SET next = excluded.next", follower, next)
	return err
}
