// Workers that compress and encrypt, zlib on the thread pool, children, an RSA signature.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { execFileSync } = require('child_process');
const crypto = require('crypto');
const util = require('util');
const zlib = require('zlib');

function noise(seed, size) {
  const b = Buffer.alloc(size);
  for (let i = 0, x = seed + 1; i < size; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    b[i] = x >>> 26;
  }
  return b;
}

function work(seed) {
  const plain = noise(seed, 1 << 20);
  const unzipped = zlib.gunzipSync(zlib.gzipSync(plain));
  const options = { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } };
  const unbrotlied = zlib.brotliDecompressSync(zlib.brotliCompressSync(plain, options));
  if (!unzipped.equals(plain) || !unbrotlied.equals(plain)) throw new Error('not what was compressed');
  const cipher = crypto.createCipheriv('aes-256-gcm', crypto.scryptSync('password', String(seed), 32), Buffer.alloc(12, seed));
  const hash = crypto.createHash('sha512').update(cipher.update(unzipped)).update(cipher.final());
  return hash.update(cipher.getAuthTag()).digest('hex');
}

function inWorker(seed) {
  return new Promise((resolve, reject) => {
    new Worker(__filename, { workerData: seed }).on('message', resolve).on('error', reject);
  });
}

async function onPool(n) {
  const plain = noise(n, 100000);
  const got = await util.promisify(zlib.inflate)(await util.promisify(zlib.deflate)(plain));
  return got.equals(plain);
}

async function main() {
  console.log((await Promise.all([0, 1, 2, 3].map(inWorker))).join('\n'));
  console.log((await Promise.all([...Array(20).keys()].map(onPool))).every(Boolean));
  console.log(execFileSync('sh', ['-c', 'seq 1 100000 | tail -n 1']).toString());
  const { publicKey, privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
  console.log('signature', crypto.verify('sha256', 'text', publicKey, crypto.sign('sha256', 'text', privateKey)));
}

if (isMainThread) main();
else parentPort.postMessage(work(workerData));
