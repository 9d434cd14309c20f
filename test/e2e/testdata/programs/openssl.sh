# Digests, ciphers and a signature; the measured loops, which end by a timer's signal.
set -eu
seq 1 300000 >data
for digest in sha256 sha512 sha3-256 blake2b512 md5; do
	openssl dgst "-$digest" -r data
done
for cipher in aes-256-cbc aes-128-ctr chacha20 camellia-128-cbc; do
	openssl enc "-$cipher" -K 000102030405060708090a0b0c0d0e0f -iv 000102030405060708090a0b0c0d0e0f -in data 2>log |
		openssl dgst -sha256 -r
done
openssl genpkey -algorithm RSA -out key 2>log
openssl pkey -in key -pubout -out public
openssl dgst -sha256 -sign key -out signature data
openssl dgst -sha256 -verify public -signature signature data
openssl speed -mr -seconds 1 -bytes 1024 -multi 2 -evp sha256 2>log | grep -o '^+F:[0-9]*:sha256:[1-9]' | cut -d: -f3
openssl speed -seconds 1 -bytes 1024 -evp aes-128-gcm 2>&1 | grep -o -i 'aes-128-gcm for 1s'
