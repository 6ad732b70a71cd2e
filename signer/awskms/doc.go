// Package awskms signs with an asymmetric key of AWS KMS, through the AWS SDK.
//
// Digests are made here and sent as such (MessageType DIGEST); Ed25519 takes
// the message itself (RAW). Credentials come from the SDK's default chain:
// environment, shared configuration, web identity, container or instance role.
//
// Only throttled requests are asked again, a few times, with back-off and
// jitter. Every other failure is told at once, for the caller to decide: a
// reply that was lost may be asked for again, since a second signature over
// the same message says nothing new.
package awskms
