// Package server is what the peers' ext_authz servers have in common: the port, the health service, and the
// answers in the form in which this project gives them (each header overwrites what a client sent).
package server

import (
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoy_type "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// Serve answers Check calls on a TCP address until SIGTERM.
func Serve(address string, authorization auth.AuthorizationServer) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatalf("cannot listen: %v", err)
	}
	server := grpc.NewServer()
	auth.RegisterAuthorizationServer(server, authorization)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	leaving := make(chan os.Signal, 1)
	signal.Notify(leaving, syscall.SIGTERM)
	go func() {
		<-leaving
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatalf("cannot serve: %v", err)
	}
}

// Header is one that Envoy sets on its way to the service.
type Header struct{ Name, Value string }

// Allow lets a request through, with headers, and without its token.
func Allow(headers []Header) *auth.CheckResponse {
	options := make([]*core.HeaderValueOption, len(headers))
	for i, header := range headers {
		options[i] = &core.HeaderValueOption{
			Header:       &core.HeaderValue{Key: header.Name, Value: header.Value},
			AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
	}
	return &auth.CheckResponse{
		Status: &status.Status{Code: int32(code.Code_OK)},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{
			Headers:         options,
			HeadersToRemove: []string{"authorization"},
		}},
	}
}

// Deny turns a request away.
func Deny(reason code.Code, http envoy_type.StatusCode) *auth.CheckResponse {
	return &auth.CheckResponse{
		Status: &status.Status{Code: int32(reason)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &envoy_type.HttpStatus{Code: http},
		}},
	}
}
