# Hashes, regular expressions, children that answer through pipes, and a timer's signals.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use POSIX ();
use Time::HiRes qw(setitimer ITIMER_REAL);

my %text;
$text{$_ % 4001} .= chr(65 + $_ % 26) for 1 .. 200000;
print "hash ", sha256_hex(join ",", map { "$_=$text{$_}" } sort keys %text), "\n";

my $numbers = join " ", map { sprintf "%05d:%x", $_, $_ * $_ } 1 .. 20000;
my $matches = () = $numbers =~ /(\d)\1:(?=[a-f])/g;
print "matches $matches\n";

my @children;
for my $n (1 .. 8) {
    pipe(my $read, my $write) or die;
    my $pid = fork // die;
    if ($pid == 0) {
        syswrite $write, sha256_hex($n x 100000);
        POSIX::_exit($n);
    }
    close $write;
    push @children, [$pid, $read];
}
for (@children) {
    my ($pid, $read) = @$_;
    my $answer = <$read>;
    waitpid $pid, 0;
    print "child $answer ", $? >> 8, "\n";
}

my ($alarms, $sum) = (0, 0);
$SIG{ALRM} = sub { $alarms++ };
setitimer(ITIMER_REAL, 0.002, 0.002);
while ($alarms < 20) { $sum += $_ for 1 .. 1000 }
setitimer(ITIMER_REAL, 0);
print "alarms\n", `perl -e 'print 6 * 7'`, "\n";
