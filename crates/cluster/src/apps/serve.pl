# Test servers without any module: serve.pl KIND:PORT...
$SIG{CHLD} = "IGNORE";
$SIG{TERM} = sub { kill "KILL", @children; exit 0 };
$name = $ENV{HOSTNAME};

for $one (@ARGV) {
  ($kind, $port) = split /:/, $one;
  if ($child = fork) { push @children, $child; next }
  $SIG{TERM} = "DEFAULT";
  socket(LISTENER, 2, 1, 6) or die "socket: $!";
  setsockopt(LISTENER, 1, 2, 1);
  bind(LISTENER, pack("S n a4 x8", 2, $port, "\0\0\0\0")) or die "port $port: $!";
  listen(LISTENER, 128);
  while (1) {
    accept(CLIENT, LISTENER) or next;
    if (fork) { close CLIENT; next }
    close LISTENER;
    select((select(CLIENT), $| = 1)[0]);
    binmode CLIENT;
    $kind eq "greet" ? greet() : $kind eq "grpc" ? grpc() : http();
    exit 0;
  }
}
sleep 3600 while 1;

sub greet {
  print CLIENT "220 hello from $name\r\n";
  $line = <CLIENT>;
  print CLIENT "421 that was all\r\n";
}

sub http {
  local $/ = "\r\n";
  while ($line = <CLIENT>) {
    ($path) = $line =~ m{^\S+ (\S+)};
    while (1) { $header = <CLIENT>; return unless defined $header; last if $header eq "\r\n" }
    $status = $path ne "/alive" && -e "/state/ill" ? "503 Service Unavailable" : "200 OK";
    $body = $path eq "/caller" ? join(".", unpack "x4 C4", getpeername CLIENT) . "\n" : "$name $path\n";
    print CLIENT "HTTP/1.1 $status\r\ncontent-length: " . length($body) . "\r\n\r\n$body";
  }
}

# HTTP/2: frames have a length of 3 bytes, a type, flags, and a stream of 4 bytes.
sub frame { syswrite CLIENT, substr(pack("N", length $_[3]), 1) . pack("C C N", @_[0 .. 2]) . $_[3] }

sub bytes {
  my ($wanted, $all) = (shift, "");
  while (length $all < $wanted) { sysread(CLIENT, $all, $wanted - length $all, length $all) or exit 0 }
  return $all;
}

sub grpc {
  bytes(24);
  frame(4, 0, 0, "");
  while (1) {
    ($length, $type, $flags, $stream) = unpack "a3 C C N", bytes(9);
    $payload = bytes(unpack "N", "\0$length");
    frame(4, 1, 0, "") if $type == 4 && !($flags & 1);
    frame(6, 1, 0, $payload) if $type == 6 && !($flags & 1);
    next unless $type < 2 && $flags & 1;
    frame(1, 4, $stream, "\x88\x0f\x10\x10application/grpc");
    frame(0, 0, $stream, "\0" . pack("N", 2) . "\x08" . (-e "/state/ill" ? "\2" : "\1"));
    frame(1, 5, $stream, "\0\x0bgrpc-status\x010");
  }
}
