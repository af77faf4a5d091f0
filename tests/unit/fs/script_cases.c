#include "script.h"

#include "base/cleanup.h"

/* protocol.md 4.4 and 6.3, one row a rule. No policy, and a policy that permits, answer alike. */
const struct script_case script_same[] = {
    {"readFile: text, empty, mode does not matter", "a=hello e=", "read a\nread e",
     "\"hello\"\n\"\"\n"},
    {"readFile: missing, missing parent, dangling, through a file, loop",
     "a=x dang->nowhere loop->loop", "read nope\nread nope/x\nread dang\nread a/x\nread loop",
     "ENOENT\nENOENT\nENOENT\nENOTDIR\nELOOP\n"},
    {"readFile: a directory, a FIFO, a socket, a device", "d/ ff| s@",
     "read d\nread ff\nread s\nread /dev/null",
     "invalid: path `$T/d` is not a file\ninvalid: path `$T/ff` is not a file\n"
     "invalid: path `$T/s` is not a file\ninvalid: path `/dev/null` is not a file\n"},
    {"readFile: follows links, also chains and through directories",
     "d/a=x ln->d/a lnd->d l2->ln abs->$T/lnd up->d/../ln d/back->../ln",
     "read ln\nread lnd/a\nread l2\nread abs/a\nread up\nread d/back\nread abs/back",
     "\"x\"\n\"x\"\n\"x\"\n\"x\"\n\"x\"\n\"x\"\n\"x\"\n"},
    {"readFile: a text that is too long is not read", "a=hello", "read a text=8\nread a text=7",
     "\"hello\"\ntoo long: 8\n"},
    {"writeFile: creates, truncates, empty", "d/", "write w hello\nwrite w x\nwrite d/e",
     "ok\nok\nok\n", "w=x:644 d/e="},
    {"writeFile: keeps inode, mode and links; follows links, also dangling ones",
     "h1=A:755 h2~h1 ln->h1 dang->made d/ out->d/new", "write ln new\nwrite dang x\nwrite out y",
     "ok\nok\nok\n", "h2=new:755 ln->h1 made=x dang->made d/new=y"},
    {"writeFile: missing parent, directory, through a file, FIFO, socket, loop",
     "d/ a=keep ff| s@ loop->loop",
     "write nope/x y\nwrite d y\nwrite a/x y\nwrite ff y\nwrite s y\nwrite loop y",
     "ENOENT\nEISDIR\nENOTDIR\ninvalid: path `$T/ff` is not a file\n"
     "invalid: path `$T/s` is not a file\nELOOP\n",
     "a=keep !nope"},
    {"writeFile: base64 is checked before the file is touched", "a=keep",
     "write a %***\nwrite a %YQ\nwrite new %YR==\nwrite a %YQ==YQ==",
     "invalid: fs/writeFile requires valid base64 dataBase64: Invalid symbol 42, offset 0.\n"
     "invalid: fs/writeFile requires valid base64 dataBase64: Invalid padding\n"
     "invalid: fs/writeFile requires valid base64 dataBase64: Invalid last symbol 82, offset 1.\n"
     "invalid: fs/writeFile requires valid base64 dataBase64: Invalid symbol 61, offset 2.\n",
     "a=keep !new"},
    {"createDirectory: recursive, again, through a link", "d/ ld->d",
     "mkdir a/b/c\nmkdir a/b/c\nmkdir ld\nmkdir ld/q/r\nmkdir .", "ok\nok\nok\nok\nok\n",
     "a/b/c/ d/q/r/"},
    {"createDirectory: not recursive", "d/ ld->d dang->x",
     "mkdir a/b -r\nmkdir a -r\nmkdir a -r\nmkdir ld -r\nmkdir dang -r",
     "ENOENT\nok\nEEXIST\nEEXIST\nEEXIST\n", "a/ !x"},
    {"createDirectory: over a file, below a file, over and below dangling links",
     "f=x dang->nowhere",
     "mkdir f\nmkdir f/x\nmkdir f/x/y\nmkdir dang\nmkdir dang/x\nmkdir dang/x/y",
     "EEXIST\nENOTDIR\nENOTDIR\nEEXIST\nEEXIST\nEEXIST\n", "!nowhere f=x"},
    {"getMetadata: file, directory, links, FIFO, socket",
     "a=hello d/ ln->a lnd->d ff| s@ in->d/../a",
     "stat a\nstat d\nstat ln\nstat lnd\nstat ff\nstat s\nstat in\nstat .",
     "file 5\ndirectory \nfile link 5\ndirectory link \n\n\nfile link 5\ndirectory \n"},
    {"getMetadata: missing, dangling, loop, through a file", "a=x dang->nowhere loop->loop",
     "stat nope\nstat nope/x/y\nstat dang\nstat loop\nstat a/x",
     "ENOENT\nENOENT\nENOENT\nELOOP\nENOTDIR\n"},
    {"getMetadata: isSymlink is about the path itself, not about links before it", "d/a=x lnd->d",
     "stat lnd/a", "file 1\n"},
    {"readDirectory: types follow links, what cannot be inspected is left out",
     "t/a=x t/d/ t/la->a t/ld->d t/dang->nowhere t/loop->loop t/ff| t/.hid=x t/out->../t", "list t",
     "[.hid a d/ ff? la ld/ out/]\n"},
    {"readDirectory: empty, through a link, not a directory, missing", "e/ le->e f=x ff| lf->f",
     "list e\nlist le\nlist f\nlist nope\nlist ff\nlist lf",
     "[]\n[]\nENOTDIR\nENOENT\nENOTDIR\nENOTDIR\n"},
    {"remove: recursive and force are the defaults", "d/e/f=x d/e/g/ a=x",
     "rm nope\nrm nope/x\nrm d\nrm a", "ok\nok\nok\nok\n", "!d !a"},
    {"remove: force hides only what is missing", "d/f=x e/ a=x",
     "rm nope -f\nrm nope/x -f\nrm d -r\nrm e -r\nrm a/x\nrm a/x -f",
     "ENOENT\nENOENT\nENOTEMPTY\nok\nENOTDIR\nENOTDIR\n", "d/f=x !e a=x"},
    {"remove: takes links and special files, never what a link names",
     "d/f=x ld->d dang->nowhere loop->loop ff| s@ t/out->../d t/x=y t/ff| t/deep/er->../../d",
     "rm ld\nrm dang\nrm loop\nrm ff\nrm s\nrm t", "ok\nok\nok\nok\nok\nok\n",
     "d/f=x !ld !dang !loop !ff !s !t"},
    {"remove: through a linked directory", "d/f=x d/g=y ld->d", "rm ld/f", "ok\n", "d/g=y !d/f"},
    {"remove: the root is refused", "a=x", "rm /\nrm / -r",
     "invalid: fs/remove cannot remove /\ninvalid: fs/remove cannot remove /\n", "a=x"},
    {"copy: a file, its mode, over another",
     "a=one:755 b=two-two:600 c=x:444 ln->b d/ dang->d/made",
     "copy a n\ncopy a b +r\ncopy c d/c\ncopy c ln\ncopy c dang", "ok\nok\nok\nok\nok\n",
     "n=one:755 b=x:444 d/c=x:444 ln->b d/made=x:444"},
    {"copy: a directory needs recursive", "d/a=A", "copy d n",
     "invalid: fs/copy requires recursive: true when sourcePath is a directory\n", "!n"},
    {"copy: a directory merges, creates parents, keeps modes of files, leaves out special files",
     "d/a=A:750 d/s/b=B d/ff| d/so@ d/l->nowhere d/e/ t/a=old t/keep=K",
     "copy d t +r\ncopy d x/y/z +r", "ok\nok\n",
     "t/a=A:750 t/keep=K t/s/b=B t/l->nowhere t/e/ !t/ff !t/so x/y/z/a=A:750 x/y/z/l->nowhere "
     "!x/y/z/ff"},
    {"copy: a directory into itself, also through links", "d/a=A d/s/ ld->d up/l->../d/s",
     "copy d d +r\ncopy d d/in +r\ncopy d d/in/deep +r\ncopy d ld/in2 +r\ncopy d up/l/x +r\n"
     "copy d up/l +r",
     "invalid: fs/copy cannot copy a directory to itself or one of its descendants\n"
     "invalid: fs/copy cannot copy a directory to itself or one of its descendants\n"
     "invalid: fs/copy cannot copy a directory to itself or one of its descendants\n"
     "invalid: fs/copy cannot copy a directory to itself or one of its descendants\n"
     "invalid: fs/copy cannot copy a directory to itself or one of its descendants\n"
     "invalid: fs/copy cannot copy a directory to itself or one of its descendants\n",
     "!d/in !d/in2 !d/s/x"},
    {"copy: into a neighbour with a similar name", "d/a=A dd/", "copy d dd +r", "ok\n", "dd/a=A"},
    {"copy: a link as a link, never over anything", "a=A ln->a dang->nowhere b=B d/ ld->d other->b",
     "copy ln l2\ncopy dang d2 +r\ncopy ln b\ncopy ld l3\ncopy ln other\ncopy ln d",
     "ok\nok\nEEXIST\nok\nEEXIST\nEEXIST\n", "l2->a d2->nowhere b=B l3->d other->b d/"},
    {"copy: special files are refused", "ff| s@", "copy ff n +r\ncopy s n\ncopy /dev/null n",
     "invalid: fs/copy only supports regular files, directories, and symlinks\n"
     "invalid: fs/copy only supports regular files, directories, and symlinks\n"
     "invalid: fs/copy only supports regular files, directories, and symlinks\n",
     "!n"},
    {"copy: missing source, missing parent, onto a directory, FIFO, directory onto a file",
     "a=x d/ ff| f=F dang->nowhere",
     "copy nope n\ncopy a nope/n\ncopy a d\ncopy a ff\ncopy d f +r\ncopy a f/x\ncopy d dang +r",
     "ENOENT\nENOENT\nEISDIR\ninvalid: path `$T/ff` is not a file\nEEXIST\nENOTDIR\nEEXIST\n",
     "f=F !n !nowhere"},
    {"copy: a file onto itself, its hard link, a link to itself",
     "a=precious:640 h~a l->a d/ d/back->../a",
     "copy a a\ncopy a h\ncopy a l\ncopy h a\ncopy a d/back",
     "invalid: fs/copy cannot copy a file to itself\n"
     "invalid: fs/copy cannot copy a file to itself\n"
     "invalid: fs/copy cannot copy a file to itself\n"
     "invalid: fs/copy cannot copy a file to itself\n"
     "invalid: fs/copy cannot copy a file to itself\n",
     "a=precious:640 h=precious l->a d/back->../a"},
    {"copy: a file onto a link in the destination tree follows it", "d/a=A t/a->../out out=E:600",
     "copy d t +r", "ok\n", "out=A:644 t/a->../out"},
    {"copy: a directory onto a link in the destination tree is refused", "d/s/b=B t/s->../dir dir/",
     "copy d t +r", "EEXIST\n", "!dir/b t/s->../dir"},
    {"canonicalize: links, missing, dangling, the root", "d/a=A ln->d/a dang->x lnd->d d/up->..",
     "canon ln\ncanon lnd/a\ncanon dang\ncanon nope\ncanon /\ncanon lnd/up/ln\ncanon .",
     "$T/d/a\n$T/d/a\nENOENT\nENOENT\n/\n$T/d/a\n$T\n"},
    {"walk: breadth first, bytewise, links and special files left out",
     "w/z= w/a/f= w/b/f= w/b/c/f= w/b/c/d/ w/.hid/in/x= w/.dot= w/b/la->../a w/b/lz->../z "
     "w/self->. w/dang->nowhere w/ff|",
     "walk w",
     "[w/.dot w/.hid/ w/a/ w/b/ w/z w/.hid/in/ w/a/f w/b/c/ w/b/f w/.hid/in/x w/b/c/d/ "
     "w/b/c/f]\n"},
    {"walk: following lists linked directories once and ends",
     "w/z= w/a/f= w/b/f= w/b/c/f= w/b/c/d/ w/.hid/in/x= w/.dot= w/b/la->../a w/b/lz->../z "
     "w/self->. w/dang->nowhere w/ff|",
     "walk w follow",
     "[w/.dot w/.hid/ w/a/ w/b/ w/self/ w/z w/.hid/in/ w/a/f w/b/c/ w/b/f w/b/la/ w/.hid/in/x "
     "w/b/c/d/ w/b/c/f]\n"},
    {"walk: a followed link keeps its own name in the paths",
     "w/l->../t t/s/f= t/g=", "walk w follow", "[w/l/ w/l/g w/l/s/ w/l/s/f]\n"},
    {"walk: depth, directories, entries, hidden",
     "w/z= w/a/f= w/b/f= w/b/c/f= w/.hid/in/x= w/.dot=",
     "walk w depth=0\nwalk w dirs=2\nwalk w entries=3\nwalk w prune\nwalk w entries=11\n"
     "walk w dirs=6",
     "[w/.dot w/.hid/ w/a/ w/b/ w/z]\n"
     "[w/.dot w/.hid/ w/a/ w/b/ w/z w/.hid/in/] truncated\n"
     "[w/.dot w/.hid/ w/a/] truncated\n"
     "[w/.dot w/.hid/ w/a/ w/b/ w/z w/a/f w/b/c/ w/b/f w/b/c/f]\n"
     "[w/.dot w/.hid/ w/a/ w/b/ w/z w/.hid/in/ w/a/f w/b/c/ w/b/f w/.hid/in/x w/b/c/f]\n"
     "[w/.dot w/.hid/ w/a/ w/b/ w/z w/.hid/in/ w/a/f w/b/c/ w/b/f w/.hid/in/x w/b/c/f]\n"},
    {"walk: a root that is a file, a link, missing, special", "f=x ff| l->d d/g= dang->x",
     "walk f\nwalk ff\nwalk l\nwalk l follow\nwalk nope\nwalk dang\nwalk f/x",
     "[]\n[]\n[]\n[l/g]\nENOENT\nENOENT\nENOTDIR\n"},
    {"open: regular files only", "a=x d/ ff| ln->a",
     "open a\nopen d\nopen ff\nopen nope\nopen ln\nreplace n\nreplace d\nreplace a\nreplace ff",
     "ok\ninvalid: path `$T/d` is not a file\ninvalid: path `$T/ff` is not a file\nENOENT\nok\n"
     "ok\nEISDIR\nok\ninvalid: path `$T/ff` is not a file\n",
     "n= a="},
    {"followSymlinks false: last and inner links are refused", "d/a=A ln->d/a lnd->d dang->x",
     "read d/a nofollow\nread ln nofollow\nread lnd/a nofollow\nstat ln nofollow\n"
     "stat d/a nofollow\nwrite ln x nofollow\nwrite lnd/n x nofollow\nwrite dang x nofollow\n"
     "open ln nofollow\nreplace lnd/a nofollow\nwrite d/n y nofollow\nstat nope nofollow",
     "\"A\"\ninvalid: path contains a symbolic link\ninvalid: path contains a symbolic link\n"
     "invalid: path contains a symbolic link\nfile 1\ninvalid: path contains a symbolic link\n"
     "invalid: path contains a symbolic link\ninvalid: path contains a symbolic link\n"
     "invalid: path contains a symbolic link\ninvalid: path contains a symbolic link\nok\n"
     "ENOENT\n",
     "d/a=A d/n=y !x"},
    {"followSymlinks false: create and remove", "e/ ln->e f=x",
     "mkdir n -r nofollow\nmkdir ln/x -r nofollow\nmkdir m/n nofollow\nmkdir ln/y nofollow\n"
     "rm n -r nofollow\nrm ln -r nofollow\nrm e nofollow\nrm ln/z -r nofollow\nrm f -r nofollow\n"
     "rm nope -r nofollow",
     "ok\ninvalid: path contains a symbolic link\nok\ninvalid: path contains a symbolic link\n"
     "ok\ninvalid: path contains a symbolic link\n"
     "unsupported: recursive no-follow removal is unsupported\n"
     "invalid: path contains a symbolic link\nok\nok\n",
     "e/ ln->e m/n/ !e/x !e/y !n !f"},
};
const size_t script_n_same = BLY_LEN(script_same);

#define DENIED(name) "denied: $T/" name " is not permitted by filesystem sandbox\n"

/* What a policy says no to; sandbox.md 3.2, 3.3, 5.2. */
const struct script_case script_denials[] = {
    {"a hidden path and a missing one read alike", "w/a=in out/secret=s out/d/",
     "read out/secret\nread out/none\nstat out/secret\nstat out/none\nstat out\nlist out\n"
     "list none\nread out/secret/x\ncanon out/secret\nwalk out\nopen out/secret\nstat out/d/x",
     "ENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\n"
     "ENOENT\n",
     NULL, "minimal\nrw $T/w"},
    {"a denied path and a missing one below it read alike", "w/p/s=s w/p/d/ w/a=x",
     "read w/p/s\nread w/p/none\nstat w/p\nstat w/p/none\nlist w/p\nread w/p/s/x\nread w/q/x\n"
     "list w",
     "EACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\n[a p/]\n", NULL,
     "minimal\nrw $T/w\ndeny $T/w/p\ndeny $T/w/q"},
    {"what is denied reads as denied where nothing is granted around it, there or not",
     "o/p/s=s o/p/d/ o/x=x w/l->../o/p/s w/n->../o/p/none w/d->../o w/up->../o/x/..",
     "read o/p/s\nread o/p/none\nread o/p/s/x\nstat o/p\nlist o/p\nlist o/p/d\nwalk o/p\n"
     "canon o/p/s\nopen o/p/s\ncopy o/p/s w/n\ncopy o/p w/n +r\nread none/q/s\nstat none/q\n"
     "read w/l\nread w/n\nread w/d/p/s\nread w/d/p/none\nread o/p/s nofollow\n"
     "read o/x\nread o/none\nstat o\nstat none\nread none/r\nread w/d/x\nstat w/up\nread o/px\n"
     "write o/p/s z\nmkdir o/p/m\nrm o/p -f",
     "EACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\n"
     "EACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\n"
     "ENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\n" DENIED("o/p/s")
         DENIED("o/p/m") DENIED("o/p"),
     "o/p/s=s o/p/d/ o/x=x !o/p/m", "minimal\nrw $T/w\ndeny $T/o/p\ndeny $T/none/q"},
    {"the same for what a pattern denies", "o/d/x.env=s o/d/e.env/f=f o/d/x=x",
     "read o/d/x.env\nread o/d/none.env\nread o/d/x.env/y\nread o/d/e.env/f\nlist o/d/e.env\n"
     "read o/n/x.env\nread o/d/x\nread o/d/none\nlist o/d\nwrite o/d/x.env z",
     "EACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nENOENT\nENOENT\nENOENT\n" DENIED("o/d/x.env"),
     "o/d/x.env=s", "minimal\nrw $T/w\nglob $T/o/**/*.env"},
    {"writing what is hidden is refused, whether it exists or not", "w/ out/secret=s out/dir/",
     "write out/secret x\nwrite out/none x\nwrite none x\nwrite none/x y\nmkdir out/d\nmkdir none\n"
     "mkdir none/x -r\nrm out/secret\nrm none\nrm none/x -f\nrm out\nreplace out/secret\n"
     "replace none\nmkdir out",
     DENIED("out/secret") DENIED("out/none") DENIED("none") DENIED("none/x") DENIED("out/d")
         DENIED("none") DENIED("none/x") DENIED("out/secret") DENIED("none") DENIED("none/x")
             DENIED("out") DENIED("out/secret") DENIED("none") DENIED("out"),
     "out/secret=s out/dir/ !out/none !none !out/d", "minimal\nrw $T/w"},
    {"writing what is readable is refused alike", "w/ out/secret=s out/dir/",
     "write out/secret x\nwrite out/none x\nwrite out/secret/x y\nmkdir out/d\nmkdir out/dir\n"
     "mkdir out/dir -r\nrm out/secret\nrm out/none\nrm out/dir\nreplace out/secret\n"
     "write out/dir x",
     DENIED("out/secret") DENIED("out/none") DENIED("out/secret/x") DENIED("out/d")
         DENIED("out/dir") DENIED("out/dir") DENIED("out/secret") DENIED("out/none")
             DENIED("out/dir") DENIED("out/secret") DENIED("out/dir"),
     "out/secret=s out/dir/ !out/none", "ro /\nrw $T/w"},
    {"links do not lead out for reading",
     "w/esc->../out/secret w/escd->../out w/abs->$T/out/secret out/secret=s w/l2->escd/secret "
     "w/dang->../out/none w/up->../../..",
     "read w/esc\nread w/escd/secret\nlist w/escd\nread w/abs\nread w/l2\nstat w/esc\nstat w/dang\n"
     "canon w/esc\nstat w/escd/none\nlist w\nwalk w follow\nopen w/esc\nstat w/up",
     "ENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nENOENT\n[]\n[]\nENOENT\n"
     "ENOENT\n",
     NULL, "minimal\nrw $T/w"},
    {"links do not lead out for writing",
     "w/esc->../out/secret w/escd->../out w/dang->../out/new out/secret=s out/d/ w/a=A",
     "write w/esc x\nwrite w/escd/new x\nwrite w/dang x\nmkdir w/escd/new\nmkdir w/escd\n"
     "mkdir w/dang\nrm w/escd/secret\nrm w/escd/d\nreplace w/esc\ncopy w/a w/esc\ncopy w/a w/dang\n"
     "copy w/a w/escd/new",
     DENIED("w/esc") DENIED("w/escd/new") DENIED("w/dang") DENIED("w/escd/new") DENIED("w/escd")
         DENIED("w/dang") DENIED("w/escd/secret") DENIED("w/escd/d") DENIED("w/esc") DENIED("w/esc")
             DENIED("w/dang") DENIED("w/escd/new"),
     "out/secret=s out/d/ !out/new", "ro /\nrw $T/w"},
    {"a link may be removed and copied as a link",
     "w/esc->../out/secret w/escd->../out out/secret=s",
     "copy w/esc w/esc2\nrm w/esc\nrm w/escd\ncopy w/esc2 none", "ok\nok\nok\n" DENIED("none"),
     "w/esc2->../out/secret out/secret=s !w/esc !w/escd", "minimal\nrw $T/w"},
    {"links inside what is granted work", "w/d/a=A w/ln->d/a w/lnd->d w/abs->$T/w/d w/dang->d/new",
     "read w/ln\nread w/lnd/a\nwrite w/dang x\nmkdir w/abs/x/y\nlist w/abs",
     "\"A\"\n\"A\"\nok\nok\n[a new x/]\n", "w/d/new=x w/d/x/y/", "minimal\nrw $T/w"},
    {"copying: the part that is not allowed decides", "w/a=A out/secret=s out/d/x=X w/d/",
     "copy out/secret w/stolen\ncopy out/none w/stolen\ncopy out/d w/stolen +r\n"
     "copy w/a out/c\ncopy w/a out/secret\ncopy w/d out/d2 +r\ncopy w/a none",
     "ENOENT\nENOENT\nENOENT\n" DENIED("out/c") DENIED("out/secret") DENIED("out/d2")
         DENIED("none"),
     "!w/stolen out/secret=s !out/c !out/d2 !none", "minimal\nrw $T/w"},
    {"protected names: no change, no creation, missing or not", "w/.git/config=g w/a=A w/d/x=X",
     "write w/.git/config x\nwrite w/.git/new x\nwrite w/.codex/x y\nmkdir w/.codex\nmkdir "
     "w/.aws/x\n"
     "write w/.agents x\nrm w/.git\nrm w/.git/config\ncopy w/a w/.codex\ncopy w/d w/.codex +r\n"
     "copy w/d w/.git +r\nread w/.git/config\nlist w\nrm w",
     DENIED("w/.git/config") DENIED("w/.git/new") DENIED("w/.codex/x") DENIED("w/.codex") DENIED(
         "w/.aws/x") DENIED("w/.agents") DENIED("w/.git") DENIED("w/.git/config") DENIED("w/.codex")
         DENIED("w/.codex") DENIED("w/.git") "\"g\"\n[.git/ a d/]\n" DENIED("w"),
     "w/.git/config=g !w/.git/new !w/.codex !w/.aws !w/.agents w/a=A", "minimal\nrw $T/w"},
    {"protected names through links inside the root", "w/.git/config=g w/l->.git w/d/up->../.git",
     "write w/l/config x\nwrite w/d/up/hooks x\nrm w/l/config\nmkdir w/l/hooks\nrm w/l",
     DENIED("w/l/config") DENIED("w/d/up/hooks") DENIED("w/l/config") DENIED("w/l/hooks") "ok\n",
     "w/.git/config=g !w/.git/hooks !w/l", "minimal\nrw $T/w"},
    {"copying a tree does not follow links out of what is granted",
     "w/s/a=A w/t/a->../../out/x out/x=X", "copy w/s w/t +r", DENIED("w/t"), "out/x=X",
     "ro /\nrw $T/w"},
    {"a tree with a protected name is not copied over one", "s/.git/hooks=evil s/a=A w/x=x t/a=T",
     "copy s w +r\ncopy t w +r", DENIED("w") "ok\n", "!w/.git w/a=T w/x=x",
     "minimal\nro $T/s\nro $T/t\nrw $T/w"},
    {"a read-only part inside a writable root", "w/ro/b=y w/a=x w/d/e/keep=k w/d/f=f",
     "write w/ro/b z\nread w/ro/b\nwrite w/n z\nrm w/ro\nrm w/d\nrm w/d/f\nrm w/d/e",
     DENIED("w/ro/b") "\"y\"\nok\n" DENIED("w/ro") DENIED("w/d") "ok\n" DENIED("w/d/e"),
     "w/ro/b=y w/n=z w/d/e/keep=k !w/d/f", "minimal\nrw $T/w\nro $T/w/ro\nro $T/w/d/e/keep"},
    {"the root itself cannot be removed, nor half of it", "w/a=x w/.git/x=x", "rm w\nrm w -r",
     DENIED("w") DENIED("w"), "w/a=x w/.git/x=x", "ro /\nrw $T/w"},
    {"write below deny is open, read below deny is not", "w/p/open/a=A w/p/q/s=S w/p/s=s",
     "read w/p/open/a\nwrite w/p/open/n x\nread w/p/q/s\nread w/p/s\nlist w/p\nstat w/p\n"
     "list w/p/open",
     "\"A\"\nok\nEACCES\nEACCES\nEACCES\nEACCES\n[a n]\n", "w/p/open/n=x",
     "minimal\nrw $T/w\ndeny $T/w/p\nrw $T/w/p/open\nro $T/w/p/q"},
    {"copying a tree stops at what is denied and has touched nothing", "w/t/a=A w/t/p/s=S w/t/z=Z",
     "copy w/t w/n +r\ncopy w/t/p w/n +r\ncopy w/t/p/s w/n\nrm w/t",
     "EACCES\nEACCES\nEACCES\n" DENIED("w/t"), "!w/n w/t/p/s=S w/t/a=A",
     "minimal\nrw $T/w\ndeny $T/w/t/p"},
    {"globs: files, directories, aliases, what appears later",
     "w/.env=x w/d/x.env=x w/ok=y w/dir.env/f=s w/alias->d/x.env w/n.env->ok w/t/.env=s w/t/a=A",
     "read w/.env\nread w/d/x.env\nread w/ok\nread w/dir.env/f\nread w/alias\nread w/n.env\n"
     "write w/new.env x\nmkdir w/m.env/x\nrm w/d/x.env\ncopy w/.env w/stolen\nlist w/dir.env\n"
     "copy w/t w/t2 +r\nrm w/t\nrm w/t/a\nwrite w/t/b x\nrm w/ok",
     "EACCES\nEACCES\n\"y\"\nEACCES\nEACCES\nEACCES\n" DENIED("w/new.env") DENIED("w/m.env/x")
         DENIED("w/d/x.env") "EACCES\nEACCES\nEACCES\n" DENIED("w/t") "ok\nok\nok\n",
     "!w/new.env !w/m.env w/d/x.env=x !w/stolen !w/t2 w/t/.env=s !w/t/a w/t/b=x !w/ok",
     "minimal\nrw $T/w\nglob $T/w/**/*.env"},
    {"globs: a tree in which nothing matches can be removed and copied", "w/t/a=A w/t/s/b=B",
     "copy w/t w/n +r\nrm w/t", "ok\nok\n", "w/n/s/b=B !w/t",
     "minimal\nrw $T/w\nglob $T/w/**/*.env"},
    {"a file as writable root", "w=x o=o", "read w\nwrite w y\nrm w\nread o\nwrite w/x z",
     "\"x\"\nok\n" DENIED("w") "ENOENT\nENOTDIR\n", "w=y", "minimal\nrw $T/w"},
    {"the way to a root cannot be listed or told from nothing", "a/b/w/x=X a/b/other=o",
     "list a\nlist a/b\nstat a\nread a/b/other\nread a/b/w/x\nstat a/b/none\nlist a/b/w",
     "ENOENT\nENOENT\nENOENT\nENOENT\n\"X\"\nENOENT\n[x]\n", NULL, "minimal\nrw $T/a/b/w"},
    {"followSymlinks false decides first", "w/l->../out out/s=s w/a=A",
     "read out/s nofollow\nstat out nofollow\nwrite out/s x nofollow\nread w/l/s nofollow\n"
     "rm out/s -r nofollow\nread w/a nofollow",
     "ENOENT\nENOENT\n" DENIED("out/s") "invalid: path contains a symbolic link\n" DENIED(
         "out/s") "\"A\"\n",
     "out/s=s", "minimal\nrw $T/w"},
    {"walk shows what is denied as a directory with an error", "w/p/s=s w/a=x w/d/f=f", "walk w",
     "[w/a w/d/ w/p/ w/d/f w/p!Permission denied (os error 13)]\n", NULL,
     "minimal\nrw $T/w\ndeny $T/w/p"},
};
const size_t script_n_denials = BLY_LEN(script_denials);

/* A wall denies what these begin with; here the descriptors must be recognised for what they are.
 */
const struct script_case script_magic = {
    "links of /proc lead nowhere",
    "w/root->/proc/self/root w/cwd->/proc/self/cwd out/secret=s",
    "read w/root$T/out/secret\nread /proc/self/root$T/out/secret\nlist w/cwd\n"
    "read /proc/self/fd/0\nwrite /proc/self/root$T/w/n x",
    "ELOOP\nELOOP\nELOOP\nELOOP\ndenied: /proc/self/root$T/w/n is not permitted by filesystem "
    "sandbox\n",
    "!w/n",
    "ro /\ndeny $T/out\nrw $T/w"};
