package api

import (
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/labstack/echo/v4"

	"github.com/kernelgate/kernelgate/keyregistry"
	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
	"github.com/kernelgate/kernelgate/workflow/upgrade"
)

const (
	// maxRegistryEntry bounds a registry entry: a document of 1 MiB in base64
	// and its statement's envelope.
	maxRegistryEntry = 3 << 20
	bundleType       = "application/vnd.kernelgate.upgrade-bundle.v1+json"
	defaultLimit     = 50
	maxLimit         = 200
	maxCursor        = 200
	maxStates        = 14
	// bodyTime is how long a client may take to send a JSON body.
	bodyTime = 30 * time.Second
)

// submitters say which roles send which kind, besides operators.
var submitters = map[Kind][]Role{
	KindManifest:         {RoleRequestor, RoleApprover},
	KindApproval:         {RoleApprover},
	KindRejection:        {RoleApprover},
	KindTestRequest:      {RoleApprover},
	KindTestResult:       {RoleCI},
	KindEmergencyTrigger: {RoleApprover},
	KindKeySuspension:    {RoleApprover, RoleRequestor, RoleCI}, // everybody suspends own keys
}

func (s *server) PostRecord(c echo.Context) error {
	wire, err := readJSON(c, envelope.MaxWire)
	if err != nil {
		return err
	}
	env, err := envelope.Parse(wire)
	if err != nil {
		return err
	}
	kind, known := kinds[env.PayloadType]
	if !known {
		return failure.New(failure.WrongPayloadType, "records of type %q are not taken here", env.PayloadType)
	}
	if err := allow(c, submitters[kind]...); err != nil {
		return err
	}
	receipt, err := s.Engine.Submit(c.Request().Context(), kind, env)
	if err != nil {
		return err
	}
	if receipt.Added {
		return c.JSON(http.StatusCreated, receipt)
	}
	return c.JSON(http.StatusOK, receipt)
}

// PreviewPolicy takes what is no record yet: no signature is asked for, so
// nothing but the policy looks at it.
func (s *server) PreviewPolicy(c echo.Context) error {
	if err := allow(c, submitters[KindManifest]...); err != nil {
		return err
	}
	body, err := readJSON(c, envelope.MaxPayload)
	if err != nil {
		return err
	}
	var m upgrade.Manifest
	if err := json.Unmarshal(body, &m, json.RejectUnknownMembers(true)); err != nil {
		return refuse(http.StatusBadRequest, CodeBadRequest, "the body is no manifest: %v", err)
	}
	preview, err := s.Engine.Preview(c.Request().Context(), m)
	return answer(c, preview, err)
}

func (s *server) ListUpgrades(c echo.Context, p ListUpgradesParams) error {
	limit, err := limitOf(p.Limit)
	if err != nil {
		return err
	}
	q := Query{Limit: limit}
	if p.State != nil {
		q.States = *p.State
	}
	if len(q.States) > maxStates {
		return refuse(http.StatusBadRequest, CodeBadRequest, "at most %d states", maxStates)
	}
	for _, state := range q.States {
		if !state.Valid() {
			return refuse(http.StatusBadRequest, CodeBadRequest, "%q is no state", state)
		}
	}
	if p.Target != nil {
		if err := q.Target.UnmarshalText([]byte(*p.Target)); err != nil {
			return badParam("target", err)
		}
	}
	if p.Cursor != nil {
		q.Cursor = *p.Cursor
	}
	if len(q.Cursor) > maxCursor {
		return refuse(http.StatusBadRequest, CodeBadRequest, "the cursor is none that this gateway gave")
	}
	page, err := s.Engine.Upgrades(c.Request().Context(), q)
	return answerTagged(c, page, err)
}

func (s *server) GetUpgrade(c echo.Context, id Id) error {
	uuid, err := parseUUID(id)
	if err != nil {
		return err
	}
	detail, err := s.Engine.Upgrade(c.Request().Context(), uuid)
	return answerTagged(c, detail, err)
}

func (s *server) RequestApprovals(c echo.Context, id Id) error {
	if err := allow(c, RoleRequestor, RoleApprover); err != nil {
		return err
	}
	uuid, err := parseUUID(id)
	if err != nil {
		return err
	}
	upgrade, err := s.Engine.RequestApprovals(c.Request().Context(), uuid, holder(c))
	return answer(c, upgrade, err)
}

func (s *server) GetBundle(c echo.Context, id Id) error {
	uuid, err := parseUUID(id)
	if err != nil {
		return err
	}
	file, err := s.Engine.Bundle(c.Request().Context(), uuid)
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, bundleType, file)
}

func (s *server) ListUpgradeEvents(c echo.Context, id Id) error {
	uuid, err := parseUUID(id)
	if err != nil {
		return err
	}
	events, err := s.Engine.UpgradeEvents(c.Request().Context(), uuid)
	return answer(c, EventPage{Events: events}, err)
}

func (s *server) ListEvents(c echo.Context, p ListEventsParams) error {
	limit, err := limitOf(p.Limit)
	if err != nil {
		return err
	}
	if p.From != nil && (*p.From < 0 || *p.From > envelope.MaxInt) {
		return refuse(http.StatusBadRequest, CodeBadRequest, "from is 0 to %d", int64(envelope.MaxInt))
	}
	if wantsStream(c.Request().Header.Get(echo.HeaderAccept)) {
		return s.streamEvents(c, p)
	}
	var from int64
	if p.From != nil {
		from = *p.From
	}
	events, err := s.Engine.Events(c.Request().Context(), from, limit)
	page := EventPage{Events: events}
	if len(events) == limit {
		next := events[limit-1].Seq + 1
		page.Next = &next
	}
	return answer(c, page, err)
}

func (s *server) GetCheckpoint(c echo.Context) error {
	note, err := s.Engine.Checkpoint(c.Request().Context())
	if err != nil {
		return err
	}
	return c.String(http.StatusOK, note)
}

func (s *server) GetRegistry(c echo.Context) error {
	chain, err := s.Engine.Registry(c.Request().Context())
	return answer(c, chain, err)
}

func (s *server) GetTarget(c echo.Context, name ID) error {
	var id envelope.ID
	if err := id.UnmarshalText([]byte(name)); err != nil {
		return badParam("name", err)
	}
	target, err := s.Engine.Target(c.Request().Context(), id)
	return answer(c, target, err)
}

func (s *server) PostRegistry(c echo.Context) error {
	if err := allow(c, RoleApprover); err != nil {
		return err
	}
	body, err := readJSON(c, maxRegistryEntry)
	if err != nil {
		return err
	}
	var entry keyregistry.SignedDocument
	if err := json.Unmarshal(body, &entry, json.RejectUnknownMembers(true)); err != nil {
		return refuse(http.StatusBadRequest, CodeBadRequest, "the body is no registry entry: it has a document in base64 and its statement's envelope")
	}
	if err := entry.Statement.Check(); err != nil {
		return err
	}
	if err := s.Engine.AcceptRegistry(c.Request().Context(), entry); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// answer sends v, or passes err on.
func answer(c echo.Context, v any, err error) error {
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, v)
}

// answerTagged sends v with an ETag over its bytes, or 304 where the client has
// them.
func answerTagged(c echo.Context, v any, err error) error {
	if err != nil {
		return err
	}
	body, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return err
	}
	tag := strconv.Quote(envelope.DigestOf(body).Hex()[:32])
	header := c.Response().Header()
	header.Set("ETag", tag)
	header.Set(echo.HeaderCacheControl, "private, no-cache")
	if slices.Contains(tags(c.Request().Header.Get("If-None-Match")), tag) {
		return c.NoContent(http.StatusNotModified)
	}
	return c.JSONBlob(http.StatusOK, body)
}

// tags are the entity tags of If-None-Match. A weak one serves as well: equal
// bytes are equal.
func tags(header string) []string {
	list := strings.Split(header, ",")
	for i := range list {
		list[i] = strings.TrimPrefix(strings.TrimSpace(list[i]), "W/")
	}
	return list
}

// readJSON reads a body of at most limit bytes, within bodyTime.
func readJSON(c echo.Context, limit int64) ([]byte, error) {
	media, _, err := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType))
	if err != nil || media != echo.MIMEApplicationJSON {
		return nil, refuse(http.StatusUnsupportedMediaType, CodeMediaType, "send Content-Type: application/json")
	}
	// Not every writer has deadlines (a test's recorder); the server's own hold then.
	_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Now().Add(bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, limit))
	if err != nil {
		return nil, bodyError(err)
	}
	return body, nil
}

func parseUUID(text string) (envelope.UUID, error) {
	var id envelope.UUID
	if err := id.UnmarshalText([]byte(text)); err != nil {
		return id, badParam("id", err)
	}
	return id, nil
}

// badParam is 400: a path or query is no record, so no failure class is told.
func badParam(name string, err error) error {
	return refuse(http.StatusBadRequest, CodeBadRequest, "%s: %s", name, failure.DetailOf(err))
}

func limitOf(limit *Limit) (int, error) {
	if limit == nil {
		return defaultLimit, nil
	}
	if *limit < 1 || *limit > maxLimit {
		return 0, refuse(http.StatusBadRequest, CodeBadRequest, "limit is 1 to %d", maxLimit)
	}
	return int(*limit), nil
}
