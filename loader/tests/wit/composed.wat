;; Two components that were composed: a handler of wasi:http 0.2, and one that gives it its text as a resource of its own.
;; Linking does not hold it, so the engine's component runtime runs it: a guest of tests and of the lab. The handler is
;; that of `bench/src/peers/wasmtime.wat`, which says what it does; the other counts its calls in the first letter.
(component
  ;; What it imports.
  (import "wasi:io/error@0.2.0" (instance $error
    (export "error" (type (sub resource)))))
  (alias export $error "error" (type $io-error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $io-error (type $outer-error))
    (export "error" (type $error (eq $outer-error)))
    (export "output-stream" (type $output-stream (sub resource)))
    (type $stream-error' (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error')))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8))
      (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:http/types@0.2.0" (instance $types
    (alias outer 1 $output-stream (type $outer-stream))
    (export "output-stream" (type $output-stream (eq $outer-stream)))
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type (sub resource)))
    (export "outgoing-body" (type $outgoing-body (sub resource)))
    (export "outgoing-response" (type $outgoing-response (sub resource)))
    (export "response-outparam" (type $response-outparam (sub resource)))
    (type $header-error' (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $header-error (eq $header-error')))
    (type $dns-error' (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns-error (eq $dns-error')))
    (type $tls-alert' (record
      (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls-alert (eq $tls-alert')))
    (type $field-size' (record
      (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $field-size (eq $field-size')))
    (type $error-code' (variant
      (case "DNS-timeout")
      (case "DNS-error" $dns-error)
      (case "destination-not-found")
      (case "destination-unavailable")
      (case "destination-IP-prohibited")
      (case "destination-IP-unroutable")
      (case "connection-refused")
      (case "connection-terminated")
      (case "connection-timeout")
      (case "connection-read-timeout")
      (case "connection-write-timeout")
      (case "connection-limit-reached")
      (case "TLS-protocol-error")
      (case "TLS-certificate-error")
      (case "TLS-alert-received" $tls-alert)
      (case "HTTP-request-denied")
      (case "HTTP-request-length-required")
      (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid")
      (case "HTTP-request-URI-invalid")
      (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32))
      (case "HTTP-request-header-size" (option $field-size))
      (case "HTTP-request-trailer-section-size" (option u32))
      (case "HTTP-request-trailer-size" $field-size)
      (case "HTTP-response-incomplete")
      (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $field-size)
      (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32))
      (case "HTTP-response-trailer-size" $field-size)
      (case "HTTP-response-transfer-coding" (option string))
      (case "HTTP-response-content-coding" (option string))
      (case "HTTP-response-timeout")
      (case "HTTP-upgrade-failed")
      (case "HTTP-protocol-error")
      (case "loop-detected")
      (case "configuration-error")
      (case "internal-error" (option string))))
    (export "error-code" (type $error-code (eq $error-code')))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append" (func
      (param "self" (borrow $fields)) (param "name" string) (param "value" (list u8))
      (result (result (error $header-error)))))
    (export "[constructor]outgoing-response" (func
      (param "headers" (own $fields)) (result (own $outgoing-response))))
    (export "[method]outgoing-response.body" (func
      (param "self" (borrow $outgoing-response)) (result (result (own $outgoing-body)))))
    (export "[method]outgoing-body.write" (func
      (param "self" (borrow $outgoing-body)) (result (result (own $output-stream)))))
    (export "[static]outgoing-body.finish" (func
      (param "this" (own $outgoing-body)) (param "trailers" (option (own $fields)))
      (result (result (error $error-code)))))
    (export "[static]response-outparam.set" (func
      (param "param" (own $response-outparam))
      (param "response" (result (own $outgoing-response) (error $error-code)))))))
  (alias export $types "incoming-request" (type $incoming-request))
  (alias export $types "response-outparam" (type $response-outparam))


  (component $texts
    (core module $m
      (memory (export "memory") 1)
      (data (i32.const 16) "SIXTEEN BYTES OK")
      (global $calls (mut i32) (i32.const 0))
      (func (export "dtor") (param i32))
      (func (export "take") (param i32) (result i32)
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (i32.store8 (i32.const 16) (i32.add (i32.const 64) (global.get $calls)))
        (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 16))
        (i32.const 0)))
    (core instance $i (instantiate $m))
    (type $text' (resource (rep i32) (dtor (func $i "dtor"))))
    (export $text "text" (type $text'))
    (core func $new (canon resource.new $text'))
    (core module $maker
      (import "" "new" (func $new (param i32) (result i32)))
      (func (export "make") (result i32) (call $new (i32.const 7))))
    (core instance $maker (instantiate $maker
      (with "" (instance (export "new" (func $new))))))
    (func (export "make") (result (own $text)) (canon lift (core func $maker "make")))
    (func (export "take") (param "text" (borrow $text)) (result string)
      (canon lift (core func $i "take") (memory $i "memory"))))
  (instance $texts (instantiate $texts))
  (component $handler-of-texts
  ;; What it imports.
  (import "wasi:io/error@0.2.0" (instance $error
    (export "error" (type (sub resource)))))
  (alias export $error "error" (type $io-error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $io-error (type $outer-error))
    (export "error" (type $error (eq $outer-error)))
    (export "output-stream" (type $output-stream (sub resource)))
    (type $stream-error' (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error')))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8))
      (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:http/types@0.2.0" (instance $types
    (alias outer 1 $output-stream (type $outer-stream))
    (export "output-stream" (type $output-stream (eq $outer-stream)))
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type (sub resource)))
    (export "outgoing-body" (type $outgoing-body (sub resource)))
    (export "outgoing-response" (type $outgoing-response (sub resource)))
    (export "response-outparam" (type $response-outparam (sub resource)))
    (type $header-error' (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $header-error (eq $header-error')))
    (type $dns-error' (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns-error (eq $dns-error')))
    (type $tls-alert' (record
      (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls-alert (eq $tls-alert')))
    (type $field-size' (record
      (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $field-size (eq $field-size')))
    (type $error-code' (variant
      (case "DNS-timeout")
      (case "DNS-error" $dns-error)
      (case "destination-not-found")
      (case "destination-unavailable")
      (case "destination-IP-prohibited")
      (case "destination-IP-unroutable")
      (case "connection-refused")
      (case "connection-terminated")
      (case "connection-timeout")
      (case "connection-read-timeout")
      (case "connection-write-timeout")
      (case "connection-limit-reached")
      (case "TLS-protocol-error")
      (case "TLS-certificate-error")
      (case "TLS-alert-received" $tls-alert)
      (case "HTTP-request-denied")
      (case "HTTP-request-length-required")
      (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid")
      (case "HTTP-request-URI-invalid")
      (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32))
      (case "HTTP-request-header-size" (option $field-size))
      (case "HTTP-request-trailer-section-size" (option u32))
      (case "HTTP-request-trailer-size" $field-size)
      (case "HTTP-response-incomplete")
      (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $field-size)
      (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32))
      (case "HTTP-response-trailer-size" $field-size)
      (case "HTTP-response-transfer-coding" (option string))
      (case "HTTP-response-content-coding" (option string))
      (case "HTTP-response-timeout")
      (case "HTTP-upgrade-failed")
      (case "HTTP-protocol-error")
      (case "loop-detected")
      (case "configuration-error")
      (case "internal-error" (option string))))
    (export "error-code" (type $error-code (eq $error-code')))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append" (func
      (param "self" (borrow $fields)) (param "name" string) (param "value" (list u8))
      (result (result (error $header-error)))))
    (export "[constructor]outgoing-response" (func
      (param "headers" (own $fields)) (result (own $outgoing-response))))
    (export "[method]outgoing-response.body" (func
      (param "self" (borrow $outgoing-response)) (result (result (own $outgoing-body)))))
    (export "[method]outgoing-body.write" (func
      (param "self" (borrow $outgoing-body)) (result (result (own $output-stream)))))
    (export "[static]outgoing-body.finish" (func
      (param "this" (own $outgoing-body)) (param "trailers" (option (own $fields)))
      (result (result (error $error-code)))))
    (export "[static]response-outparam.set" (func
      (param "param" (own $response-outparam))
      (param "response" (result (own $outgoing-response) (error $error-code)))))))
  (alias export $types "incoming-request" (type $incoming-request))
  (alias export $types "response-outparam" (type $response-outparam))


  (import "texts" (instance $texts
    (export "text" (type $text (sub resource)))
    (export "make" (func (result (own $text))))
    (export "take" (func (param "text" (borrow $text)) (result string)))))
  (alias export $texts "text" (type $text))
  ;; Its memory: as many pages as compilers give, texts at 1024.
  (core module $store
    (memory (export "memory") 17)
    (data (i32.const 1024) "sixteen bytes ok")
    (data (i32.const 1056) "content-length" "16"))
  (core instance $store (instantiate $store))
  (alias core export $store "memory" (core memory $memory))

  ;; Needed by what lowers an error with a text, which is never made.
  (core module $no-room
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
  (core instance $no-room (instantiate $no-room))
  (alias core export $no-room "realloc" (core func $realloc))

  (core func $fields (canon lower (func $types "[constructor]fields")))
  (core func $append (canon lower (func $types "[method]fields.append") (memory $memory)))
  (core func $response (canon lower (func $types "[constructor]outgoing-response")))
  (core func $body (canon lower
    (func $types "[method]outgoing-response.body") (memory $memory)))
  (core func $set (canon lower
    (func $types "[static]response-outparam.set") (memory $memory)))
  (core func $write (canon lower
    (func $types "[method]outgoing-body.write") (memory $memory)))
  (core func $send (canon lower
    (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))
  (core func $finish (canon lower
    (func $types "[static]outgoing-body.finish") (memory $memory) (realloc $realloc)))
  (core func $drop-request (canon resource.drop $incoming-request))
  (core func $drop-stream (canon resource.drop $output-stream))


  (core module $room
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $room (instantiate $room))
  (core func $make (canon lower (func $texts "make")))
  (core func $take (canon lower (func $texts "take") (memory $memory)
    (realloc (func $room "realloc"))))
  (core func $drop-text (canon resource.drop $text))
  (core module $guest
    (import "host" "make" (func $make (result i32)))
    (import "host" "take" (func $take (param i32 i32)))
    (import "host" "drop-text" (func $drop-text (param i32)))
    (import "store" "memory" (memory 17))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "host" "response" (func $response (param i32) (result i32)))
    (import "host" "body" (func $body (param i32 i32)))
    (import "host" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (import "host" "write" (func $write (param i32 i32)))
    (import "host" "send" (func $send (param i32 i32 i32 i32)))
    (import "host" "finish" (func $finish (param i32 i32 i32 i32)))
    (import "host" "drop-request" (func $drop-request (param i32)))
    (import "host" "drop-stream" (func $drop-stream (param i32)))
    (global $calls (mut i32) (i32.const 0))
    (global $others (mut i32) (i32.const 1))
    (func (export "handle") (param $request i32) (param $out i32)
      (local $headers i32) (local $answer i32) (local $body i32) (local $stream i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (global.set $others (i32.add (global.get $others) (i32.const 1)))
      ;; Three pages: these two, and that of the results at 4096.
      (i32.store (i32.const 8256) (i32.const -1))
      (i32.store (i32.const 12352) (i32.const -1))

      (local.set $answer (call $make))
      (call $take (local.get $answer) (i32.const 4096))
      (if (i32.ne (i32.load (i32.const 4096)) (i32.const 1024)) (then unreachable))
      (call $drop-text (local.get $answer))
      (call $drop-request (local.get $request))
      (local.set $headers (call $fields))
      (call $append (local.get $headers)
        (i32.const 1056) (i32.const 14) (i32.const 1070) (i32.const 2) (i32.const 4096))
      (if (i32.load8_u (i32.const 4096)) (then unreachable))
      (local.set $answer (call $response (local.get $headers)))
      (call $body (local.get $answer) (i32.const 4096))
      (if (i32.load8_u (i32.const 4096)) (then unreachable))
      (local.set $body (i32.load (i32.const 4100)))
      (call $set (local.get $out) (i32.const 0) (local.get $answer)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (call $write (local.get $body) (i32.const 4096))
      (if (i32.load8_u (i32.const 4096)) (then unreachable))
      (local.set $stream (i32.load (i32.const 4100)))
      (call $send (local.get $stream) (i32.const 1024) (i32.const 16) (i32.const 4096))
      (if (i32.load8_u (i32.const 4096)) (then unreachable))
      (call $drop-stream (local.get $stream))
      (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 4096))
      (if (i32.load8_u (i32.const 4096)) (then unreachable))))
  (core instance $guest (instantiate $guest
    (with "store" (instance $store))
    (with "host" (instance

      (export "make" (func $make)) (export "take" (func $take)) (export "drop-text" (func $drop-text))
      (export "fields" (func $fields))
      (export "append" (func $append))
      (export "response" (func $response))
      (export "body" (func $body))
      (export "set" (func $set))
      (export "write" (func $write))
      (export "send" (func $send))
      (export "finish" (func $finish))
      (export "drop-request" (func $drop-request))
      (export "drop-stream" (func $drop-stream))))))

  ;; What it exports.
  (func $handle
    (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $guest "handle")))
  (component $handler
    (import "incoming-request" (type $incoming-request (sub resource)))
    (import "response-outparam" (type $response-outparam (sub resource)))
    (import "handle" (func $handle
      (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))))
    (export $request "exported-incoming-request" (type $incoming-request))
    (export $outparam "exported-response-outparam" (type $response-outparam))
    (export "handle" (func $handle) (func
      (param "request" (own $request)) (param "response-out" (own $outparam)))))
  (instance $handler (instantiate $handler
    (with "incoming-request" (type $incoming-request))
    (with "response-outparam" (type $response-outparam))
    (with "handle" (func $handle))))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))

  (instance $handler-of-texts (instantiate $handler-of-texts
    (with "wasi:io/error@0.2.0" (instance $error))
    (with "wasi:io/streams@0.2.0" (instance $streams))
    (with "wasi:http/types@0.2.0" (instance $types))
    (with "texts" (instance $texts))))
  (export "wasi:http/incoming-handler@0.2.0"
    (instance $handler-of-texts "wasi:http/incoming-handler@0.2.0")))
