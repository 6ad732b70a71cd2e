package api

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/kernelgate/kernelgate/signer/envelope"
	"github.com/kernelgate/kernelgate/signer/failure"
)

// stallTime is how long an upload or a download may stand still.
const stallTime = time.Minute

func (s *server) PutArtifact(c echo.Context, p PutArtifactParams) error {
	if err := allow(c, RoleRequestor, RoleApprover, RoleCI); err != nil {
		return err
	}
	var want envelope.Digest
	if p.Digest != nil {
		var err error
		if want, err = envelope.ParseDigest(*p.Digest); err != nil {
			return badParam("digest", err)
		}
	}
	body := &upload{from: c.Request().Body, control: http.NewResponseController(c.Response())}
	digest, size, err := s.Artifacts.Put(c.Request().Context(), body)
	if err != nil {
		if body.err != nil {
			return bodyError(body.err)
		}
		return err
	}
	if p.Digest != nil && digest != want {
		return failure.New(failure.ArtifactMismatch, "the bytes that arrived are %s; send them again", digest)
	}
	return c.JSON(http.StatusOK, Artifact{Digest: digest.String(), Size: size})
}

func (s *server) GetArtifact(c echo.Context, text Digest) error {
	digest, err := envelope.ParseDigest(text)
	if err != nil {
		return badParam("digest", err)
	}
	r, size, err := s.Artifacts.Open(c.Request().Context(), digest)
	if err != nil {
		return err
	}
	defer r.Close()
	header := c.Response().Header()
	header.Set(echo.HeaderContentLength, strconv.FormatInt(size, 10))
	header.Set(echo.HeaderContentType, echo.MIMEOctetStream)
	header.Set(echo.HeaderContentDisposition, "attachment")
	header.Set("ETag", strconv.Quote(digest.String()))
	c.Response().WriteHeader(http.StatusOK)
	_, err = io.Copy(&download{to: c.Response(), control: http.NewResponseController(c.Response())}, r)
	return err
}

// download is an answer that is written for as long as it moves.
type download struct {
	to      io.Writer
	control *http.ResponseController
}

func (d *download) Write(p []byte) (int, error) {
	_ = d.control.SetWriteDeadline(time.Now().Add(stallTime)) // as in upload.Read
	return d.to.Write(p)
}

// upload is a body that is read for as long as it moves, and that remembers
// its own failure, which is the client's and not the store's.
type upload struct {
	from    io.Reader
	control *http.ResponseController
	err     error
}

func (u *upload) Read(p []byte) (int, error) {
	// Not every writer has deadlines (a test's recorder); the server's own hold then.
	_ = u.control.SetReadDeadline(time.Now().Add(stallTime))
	_ = u.control.SetWriteDeadline(time.Now().Add(stallTime + answerTime)) // the answer comes after
	n, err := u.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		u.err = err
	}
	return n, err
}

// bodyError tells a body that is too large from one that broke off.
func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return refuse(http.StatusBadRequest, CodeBadRequest, "the body broke off or came too slowly; send it again")
}
